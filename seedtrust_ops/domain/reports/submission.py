"""Asks for a report: says at once, to whoever asks, what would otherwise be found wrong when the report is made.

Nothing is built here, and nothing imported that building needs: the platform's applications call it in their requests.
It reads and writes the platform's tables alone.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.reports.parameters import UnusableRequest, read_choice, read_period
from seedtrust_ops.domain.reports.report_kinds import DISBURSEMENT_STATUSES, find_ledger, no_such_report
from seedtrust_ops.tables import ReportRequest, User

FORMATS = ("csv", "xlsx", "pdf")


def request_report(
    session: Session, *, user_id: int, kind: str, params: Mapping[str, Any] | None = None, format_name: str = "xlsx"
) -> int:
    """Add a pending request in the caller's transaction; within a minute of its commit the report is made and mailed.

    Args:
        session: a session in the caller's transaction.
        user_id: who asks, and gets the report by mail.
        kind: `case_ledger`, `disbursements`, `account_balances` or `huntington_transfers`.
        params: `case_id` for a case ledger; `from`, `to` (days, both included) and `status` for disbursements; `from`
            and `to` for transfers; none for balances. A day is a date, or text like 2026-03-31.
        format_name: `csv`, `xlsx` or `pdf`.

    Returns:
        The request's number.

    Raises:
        UnusableRequest: saying to the requester what is wrong with kind, params or format, or with their own account.
    """
    checks = _CHECKS.get(kind)
    if checks is None:
        raise no_such_report(kind)
    known, check = checks
    plain = {name: _plain(value) for name, value in (params or {}).items()}
    unknown = sorted(plain.keys() - known)
    if unknown:
        expected = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise UnusableRequest(f"The report '{kind}' has no parameter {unknown[0][:60]!r}: {expected}.")
    if format_name not in FORMATS:
        raise UnusableRequest(
            f"No report comes in the format {format_name[:60]!r}: choose one of {', '.join(FORMATS)}."
        )
    check(session, plain)
    _check_requester(session, user_id)
    request = ReportRequest(user_id=user_id, kind=kind, params=plain, format=format_name)
    session.add(request)
    session.flush()
    return request.id


def _plain(value: Any) -> Any:
    """Return a day as the platform's own requests have it: text."""
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def _check_requester(session: Session, user_id: int) -> None:
    row = session.execute(select(User.email, User.is_active).where(User.id == user_id)).one_or_none()
    if row is None:
        raise UnusableRequest(f"There is no user {user_id}, and a report is sent to the user who asks for it.")
    if not row.is_active or "@" not in row.email:
        raise UnusableRequest(
            f"User {user_id} is inactive or has no email address, so the report could not be sent to them."
        )


def _check_period(_session: Session, params: Mapping[str, Any]) -> None:
    read_period(params)


def _check_disbursements(_session: Session, params: Mapping[str, Any]) -> None:
    read_period(params)
    read_choice(params, "status", DISBURSEMENT_STATUSES)


def _check_nothing(_session: Session, _params: Mapping[str, Any]) -> None:
    """A report without parameters."""


_CHECKS: dict[str, tuple[frozenset[str], Callable[[Session, Mapping[str, Any]], object]]] = {
    "case_ledger": (frozenset({"case_id"}), find_ledger),
    "disbursements": (frozenset({"from", "to", "status"}), _check_disbursements),
    "account_balances": (frozenset(), _check_nothing),
    "huntington_transfers": (frozenset({"from", "to"}), _check_period),
}
"""What parameters each kind takes, and what checks them; the same readers that make the report."""
