"""`request_report`: what can be made is asked for, and what can't is refused at once with the words of the making."""

from datetime import date, datetime
from itertools import product
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.client import UnusableRequest, request_report
from seedtrust_ops.domain.reports.builder import MEDIA_TYPES
from seedtrust_ops.domain.reports.report_kinds import TITLES, prepare_report
from seedtrust_ops.domain.reports.request_queue import claim_request
from seedtrust_ops.domain.reports.submission import FORMATS
from seedtrust_ops.tables import ReportRequest
from seedtrust_ops_tests.support.factories import Company

ZONE = "America/New_York"
CASE = object()
"""Stands for the number of a case with an account."""
SOUND = [
    ("case_ledger", {"case_id": CASE}),
    ("disbursements", {}),
    ("disbursements", {"from": date(2026, 3, 1), "to": "2026-03-31", "status": "paid"}),
    ("disbursements", {"status": "all", "from": None}),
    ("account_balances", {}),
    ("huntington_transfers", {"from": "2026-03-31", "to": "2026-03-31"}),
]
UNSOUND: list[tuple[str, Any]] = [
    ("everything", {}),
    ("", {}),
    ("case_ledger", {}),
    ("case_ledger", {"case_id": 999_999}),
    ("case_ledger", {"case_id": "1; drop table cases"}),
    ("case_ledger", {"case_id": True}),
    ("case_ledger", {"case_id": 2**63}),
    ("disbursements", {"from": "yesterday"}),
    ("disbursements", {"from": datetime(2026, 3, 1, 12)}),  # noqa: DTZ001  it is refused, zone or not
    ("disbursements", {"from": "2026-04-01", "to": "2026-03-31"}),
    ("disbursements", {"status": "lost"}),
    ("huntington_transfers", {"to": "2026-02-30"}),
    ("huntington_transfers", {"from": "2026-01-01\0"}),
]


def filled(params: dict[str, Any], company: Company) -> dict[str, Any]:
    return {name: company.case().case_id if value is CASE else value for name, value in params.items()}


def as_stored(params: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, date) else value for name, value in params.items()}


def requester(company: Company, **columns: Any) -> int:
    with company.sessions.begin() as session:
        user = company._user(session, "admin")
        for name, value in columns.items():
            setattr(user, name, value)
        session.flush()
        return user.id


def requests_in(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(ReportRequest)).one()


def test_what_can_be_made_is_pending_when_the_caller_commits(company: Company) -> None:
    user_id = requester(company)
    for (kind, params), format_name in product(SOUND, FORMATS):
        wanted = filled(params, company)
        with company.sessions.begin() as session:
            request_id = request_report(session, user_id=user_id, kind=kind, params=wanted, format_name=format_name)
        with company.sessions.begin() as session:
            claimed = claim_request(session)
            assert claimed is not None
            asked = (claimed.id, claimed.kind, claimed.params, claimed.format)
            assert asked == (request_id, kind, as_stored(wanted), format_name)
            assert prepare_report(session, claimed.kind, claimed.params, ZONE).title == TITLES[kind]


def test_what_can_not_be_made_is_refused_in_the_words_of_the_making(company: Company) -> None:
    user_id = requester(company)
    for kind, params in UNSOUND:
        with company.sessions.begin() as session:
            with pytest.raises(UnusableRequest) as at_once:
                request_report(session, user_id=user_id, kind=kind, params=params)
            with pytest.raises(UnusableRequest) as later:
                prepare_report(session, kind, as_stored(params), ZONE)
            assert str(at_once.value) == str(later.value)
            assert requests_in(session) == 0


def test_a_parameter_that_would_be_passed_over_is_refused(company: Company) -> None:
    """A misspelt `from` would make a report of all time, and nobody would know why."""
    user_id, refused = requester(company), set()
    with company.sessions() as session:
        for kind, name in product(TITLES, ("case_id", "from", "to", "status", "form")):
            try:
                request_report(session, user_id=user_id, kind=kind, params={name: None})
            except UnusableRequest as error:
                if f"no parameter '{name}'" in str(error):
                    refused.add((kind, name))
    assert {(kind, "form") for kind in TITLES} <= refused
    assert {*product(TITLES, ("case_id", "from", "to", "status"))} - refused == {
        ("case_ledger", "case_id"),
        ("disbursements", "from"),
        ("disbursements", "to"),
        ("disbursements", "status"),
        ("huntington_transfers", "from"),
        ("huntington_transfers", "to"),
    }


def test_nobody_asks_for_nobody_nor_for_whom_no_letter_reaches_and_in_no_other_format(company: Company) -> None:
    unreachable: list[dict[str, Any]] = [{"is_active": False}, {"email": ""}, {"email": "nowhere"}]
    with company.sessions() as session:
        for columns in unreachable:
            with pytest.raises(UnusableRequest, match="could not be sent"):
                request_report(session, user_id=requester(company, **columns), kind="account_balances")
        with pytest.raises(UnusableRequest, match="no user 999999"):
            request_report(session, user_id=999_999, kind="account_balances")
        with pytest.raises(UnusableRequest, match="'docx'"):
            request_report(session, user_id=requester(company), kind="account_balances", format_name="docx")


def test_every_format_that_can_be_asked_for_can_be_built() -> None:
    assert set(FORMATS) == set(MEDIA_TYPES)
