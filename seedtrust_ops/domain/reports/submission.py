"""Submits a report request, and rejects at once what would otherwise fail when the report is generated.

The web apps call it inside their own requests, so it imports nothing that building a file needs, and it reads and
writes platform tables only.
"""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.authority import require_authority
from seedtrust_ops.domain.reports.parameters import InvalidReportRequest, read_choice, read_parameters, read_period
from seedtrust_ops.domain.reports.report_kinds import DISBURSEMENT_STATUSES, find_case_account
from seedtrust_ops.domain.reports.request_limit import MAX_WAITING_REPORTS, count_waiting_reports
from seedtrust_ops.email_addresses import InvalidEmailAddress, to_ascii_address
from seedtrust_ops.tables import ReportRequest, User

FORMATS = ("csv", "xlsx", "pdf")


def request_report(
    session: Session, *, user_id: int, kind: str, params: Mapping[str, Any] | None = None, format_name: str = "xlsx"
) -> int:
    """Add a pending request in the caller's transaction. The report is generated and emailed within a minute of commit.

    Args:
        session: a session in the caller's transaction.
        user_id: the requester, who receives the report by email: the user who is logged in, never one named by the
            request itself.
        kind: `case_ledger`, `disbursements`, `account_balances` or `huntington_transfers`.
        params: `case_id` for a case ledger; `from`, `to` (days, both inclusive) and `status` for disbursements; `from`
            and `to` for transfers; none for balances. A day is a date or a time, or text like 2026-03-31 or
            2026-03-31T14:30:00Z. Of a time, the report takes the day at the office.
        format_name: `csv`, `xlsx` or `pdf`.

    Returns:
        The request's id.

    Raises:
        ReportNotAllowed: the requester may not receive this report (`authority`).
        InvalidReportRequest: a message for the requester about the kind, params, format, or their own account.
    """
    plain = {name: _plain(value) for name, value in (params or {}).items()}
    read_parameters(kind, plain)
    if format_name not in FORMATS:
        raise InvalidReportRequest(f"Unknown report format {format_name[:60]!r}. Choose one of {', '.join(FORMATS)}.")
    _check_requester(session, user_id)
    require_authority(session, user_id, kind, plain)
    _CHECKS[kind](session, plain)
    if count_waiting_reports(session, user_id) >= MAX_WAITING_REPORTS:
        raise InvalidReportRequest(
            f"{MAX_WAITING_REPORTS} of your reports are waiting already. Request this one again when some of them have "
            "arrived."
        )
    request = ReportRequest(user_id=user_id, kind=kind, params=plain, format=format_name)
    session.add(request)
    session.flush()
    return request.id


def _plain(value: Any) -> Any:
    """Return a date or a time as the web apps store it: ISO 8601 text."""
    return value.isoformat() if isinstance(value, date) else value


def _check_requester(session: Session, user_id: int) -> None:
    row = session.execute(select(User.email, User.is_active).where(User.id == user_id)).one_or_none()
    if row is None:
        raise InvalidReportRequest(
            f"User {user_id} does not exist, and a report is emailed to the user who requests it."
        )
    if not row.is_active:
        raise InvalidReportRequest(f"User {user_id} is inactive, so the report could not be emailed.")
    try:
        to_ascii_address(row.email)
    except InvalidEmailAddress as error:
        raise InvalidReportRequest(
            f"The email address of user {user_id} can't be used, so the report could not be emailed: {error}."
        ) from None


def _check_period(_session: Session, params: Mapping[str, Any]) -> None:
    # The web apps do not know the office's time zone. Generation reads a time's day in that zone, and checks it again.
    read_period(params, "UTC")


def _check_disbursements(session: Session, params: Mapping[str, Any]) -> None:
    _check_period(session, params)
    read_choice(params, "status", DISBURSEMENT_STATUSES)


def _check_nothing(_session: Session, _params: Mapping[str, Any]) -> None:
    """A report without parameters."""


_CHECKS: dict[str, Callable[[Session, Mapping[str, Any]], object]] = {
    "case_ledger": find_case_account,
    "disbursements": _check_disbursements,
    "account_balances": _check_nothing,
    "huntington_transfers": _check_period,
}
"""How the values of each kind's parameters are validated: by the functions that generation uses too."""
