"""`request_report` accepts what can be generated, and rejects the rest at once with the error generation would give."""

from datetime import UTC, date, datetime
from itertools import product
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.client import InvalidReportRequest, request_report
from seedtrust_ops.domain.reports.file_builder import MEDIA_TYPES
from seedtrust_ops.domain.reports.report_kinds import TITLES, prepare_report
from seedtrust_ops.domain.reports.request_limit import MAX_WAITING_REPORTS
from seedtrust_ops.domain.reports.request_queue import claim_next_request, read_params
from seedtrust_ops.domain.reports.submission import FORMATS
from seedtrust_ops.tables import ReportRequest
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.test_email_addresses import INVALID as INVALID_ADDRESSES

ZONE = "America/New_York"
CASE = object()
"""Placeholder for the id of a case with an account."""
VALID = [
    ("case_ledger", {"case_id": CASE}),
    ("disbursements", {}),
    ("disbursements", {"from": date(2026, 3, 1), "to": "2026-03-31", "status": "paid"}),
    ("disbursements", {"status": "all", "from": None}),
    ("account_balances", {}),
    ("huntington_transfers", {"from": "2026-03-31", "to": "2026-03-31"}),
    ("huntington_transfers", {"from": "2026-03-01T05:00:00.000Z", "to": datetime(2026, 4, 1, 3, 59, tzinfo=UTC)}),
]
INVALID: list[tuple[str, Any]] = [
    ("everything", {}),
    ("", {}),
    ("case_ledger", {}),
    ("case_ledger", {"case_id": 999_999}),
    ("case_ledger", {"case_id": "1; drop table cases"}),
    ("case_ledger", {"case_id": True}),
    ("case_ledger", {"case_id": 2**63}),
    ("case_ledger", {"case_id": "1" + "0" * 5_000}),
    ("case_ledger", {"case_id": "0" * 19 + "1" + "0" * 30}),
    ("case_ledger", {"case_id": "7" + " " * 60 + "x"}),
    ("case_ledger", {"case_id": 10**5_020}),
    ("disbursements", {"from": "yesterday"}),
    ("disbursements", {"from": "2026-03-01T25:00:00Z"}),
    ("disbursements", {"from": "0001-01-01T00:00:01+14:00"}),
    ("disbursements", {"from": 10**5_020}),
    ("disbursements", {"from": "2026-04-01", "to": "2026-03-31"}),
    ("disbursements", {"status": "lost"}),
    ("disbursements", {"status": 10**5_020}),
    ("disbursements", {"case_id": 7, "start": "2026-01-01", "end": "2026-01-31"}),
    ("huntington_transfers", {"to": "2026-02-30"}),
    ("huntington_transfers", {"from": "2026-01-01\0"}),
]


def filled(params: dict[str, Any], company: Company) -> dict[str, Any]:
    return {name: company.case().case_id if value is CASE else value for name, value in params.items()}


def as_stored(params: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in params.items()}


def requester(company: Company, **columns: Any) -> int:
    with company.sessions.begin() as session:
        user = company._user(session, "admin")
        for name, value in columns.items():
            setattr(user, name, value)
        session.flush()
        return user.id


def requests_in(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(ReportRequest)).one()


def test_valid_request_is_pending_when_the_caller_commits(company: Company) -> None:
    user_id = requester(company)
    for (kind, params), format_name in product(VALID, FORMATS):
        params_given = filled(params, company)
        with company.sessions.begin() as session:
            request_id = request_report(
                session, user_id=user_id, kind=kind, params=params_given, format_name=format_name
            )
        with company.sessions.begin() as session:
            claimed = claim_next_request(session)
            assert claimed is not None
            stored = read_params(session, claimed)
            assert (claimed.id, claimed.kind, claimed.format) == (request_id, kind, format_name)
            assert stored == as_stored(params_given)
            assert prepare_report(session, claimed.kind, stored, ZONE).title == TITLES[kind]


def test_invalid_request_gets_the_error_that_generation_would_give(company: Company) -> None:
    user_id = requester(company)
    for kind, params in INVALID:
        with company.sessions.begin() as session:
            with pytest.raises(InvalidReportRequest) as at_once:
                request_report(session, user_id=user_id, kind=kind, params=params)
            with pytest.raises(InvalidReportRequest) as later:
                prepare_report(session, kind, as_stored(params), ZONE)
            assert str(at_once.value) == str(later.value)
            assert requests_in(session) == 0


@pytest.mark.parametrize("door", ["submission", "generation"])
def test_unknown_parameter_is_rejected(company: Company, door: str) -> None:
    """A misspelled `from` would otherwise produce a report over all time, without an explanation."""
    user_id, rejected = requester(company), set()
    with company.sessions() as session:
        for kind, name in product(TITLES, ("case_id", "from", "to", "status", "form", "start", "end")):
            try:
                if door == "submission":
                    request_report(session, user_id=user_id, kind=kind, params={name: None})
                else:
                    prepare_report(session, kind, {name: None}, ZONE)
            except InvalidReportRequest as error:
                if f"no parameter '{name}'" in str(error):
                    rejected.add((kind, name))
    assert set(product(TITLES, ("form", "start", "end"))) <= rejected
    assert {*product(TITLES, ("case_id", "from", "to", "status"))} - rejected == {
        ("case_ledger", "case_id"),
        ("disbursements", "from"),
        ("disbursements", "to"),
        ("disbursements", "status"),
        ("huntington_transfers", "from"),
        ("huntington_transfers", "to"),
    }


@pytest.mark.parametrize(
    ("first", "last", "about"),
    [
        # The beginning of a day and the end of one, as browsers send them from New York.
        ("2026-03-01T05:00:00.000Z", "2026-04-01T03:59:59.999Z", "March 1, 2026 to March 31, 2026"),
        # A day, as programs without a time zone send it.
        ("2026-03-01T00:00:00Z", "2026-03-31T00:00:00+00:00", "March 1, 2026 to March 31, 2026"),
        ("2026-03-01T00:00:00-08:00", "2026-03-31 23:59", "March 1, 2026 to March 31, 2026"),
        ("2026-03-01", None, "since March 1, 2026"),
    ],
)
def test_timestamp_means_the_day_at_the_office(company: Company, first: str, last: str | None, about: str) -> None:
    with company.sessions() as session:
        report = prepare_report(session, "huntington_transfers", {"from": first, "to": last}, ZONE)
    assert report.about == f"Queued {about}"


def test_unreachable_requester_or_unknown_format_is_rejected(company: Company) -> None:
    unreachable: list[dict[str, Any]] = [{"is_active": False}, *({"email": text} for text, _ in INVALID_ADDRESSES)]
    with company.sessions() as session:
        for columns in unreachable:
            with pytest.raises(InvalidReportRequest, match="could not be emailed"):
                request_report(session, user_id=requester(company, **columns), kind="account_balances")
        with pytest.raises(InvalidReportRequest, match="User 999999 does not exist"):
            request_report(session, user_id=999_999, kind="account_balances")
        with pytest.raises(InvalidReportRequest, match="'docx'"):
            request_report(session, user_id=requester(company), kind="account_balances", format_name="docx")


def test_requests_beyond_the_users_limit_are_rejected(company: Company) -> None:
    user_id, other_id = requester(company), requester(company)
    with company.sessions.begin() as session:
        for _ in range(MAX_WAITING_REPORTS):
            request_report(session, user_id=user_id, kind="account_balances")
        with pytest.raises(InvalidReportRequest, match="100 of your reports are waiting already"):
            request_report(session, user_id=user_id, kind="account_balances")
        request_report(session, user_id=other_id, kind="account_balances")


def test_every_format_offered_can_be_built() -> None:
    assert set(FORMATS) == set(MEDIA_TYPES)
