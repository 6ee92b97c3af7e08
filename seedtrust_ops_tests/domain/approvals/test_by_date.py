"""Approval by date: what is approved, who is emailed, and that a second run changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from seedtrust_ops.domain.approvals.by_date import approve_due, preview_due
from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.tables import Alert, Case, CaseParty, DisbursementRequest, User
from seedtrust_ops_tests.support.case_factory import CaseFactory


def approve(factory: CaseFactory) -> ApprovalReport:
    return run_in_transaction(factory.sessions, approve_due)


def test_due_request_is_approved_by_date(factory: CaseFactory) -> None:
    request = factory.request(factory.case(), 12_345)
    report = approve(factory)
    assert factory.approvals() == {request: "auto:date"}
    assert (report.count, report.amount_cents) == (1, 12_345)
    with factory.sessions() as session:
        approved_at = session.get_one(DisbursementRequest, request).approved_at
    assert approved_at is not None
    assert datetime.now(UTC) - approved_at < timedelta(minutes=1)


@pytest.mark.parametrize("date", ["infinity", "-infinity", "20260-12-01", "0044-03-15 BC", "0026-12-01"])
def test_impossible_date_approves_nothing_and_stops_no_other(factory: CaseFactory, date: str) -> None:
    impossible = factory.request(factory.case())
    with factory.sessions.begin() as session:
        session.execute(
            text("update disbursement_requests set auto_authorize_at = :date where id = :id"),
            {"date": date, "id": impossible},
        )
    due = factory.request(factory.case())
    assert run_in_transaction(factory.sessions, preview_due).count == 1
    assert approve(factory).count == 1
    assert list(factory.approvals()) == [due]


@pytest.mark.parametrize(
    "columns",
    [
        {"auto_authorize_at": datetime.now(UTC) + timedelta(hours=1)},
        {"auto_authorize_at": None},
        {"on_hold": True},
        {"status": "denied"},
        {"status": "cancelled"},
        {"status": "paid"},
    ],
    ids=["not yet due", "no date", "on hold", "denied", "cancelled", "paid"],
)
def test_ineligible_request_is_not_approved(factory: CaseFactory, columns: dict[str, Any]) -> None:
    factory.request(factory.case(), **columns)
    assert approve(factory) == ApprovalReport()
    assert factory.approvals() == {}
    assert factory.emails() == {}


def test_closed_case_gets_no_approval_but_a_closing_case_does(factory: CaseFactory) -> None:
    factory.request(factory.case(status="closed"))
    closing = factory.request(factory.case(status="closing"))
    approve(factory)
    assert list(factory.approvals()) == [closing]


def test_inactive_payee_gets_no_approval(factory: CaseFactory) -> None:
    case = factory.case()
    factory.change(User, case.surrogate_id, is_active=False)
    factory.request(case)
    approve(factory)
    assert factory.approvals() == {}


def test_emails_go_only_to_parents_representatives_and_case_manager(factory: CaseFactory) -> None:
    case = factory.case()
    factory.case()
    factory.user("admin")
    request = factory.request(case, 4_200, description="Flight to the clinic")
    assert approve(factory).emails == 3
    emails = factory.emails()
    assert set(emails) == {f"dr-approved:{request}:{user}" for user in (case.parent_id, case.rep_id, case.manager_id)}
    email = emails[f"dr-approved:{request}:{case.parent_id}"]
    with factory.sessions() as session:
        parent = session.get_one(User, case.parent_id)
        payee = session.get_one(User, case.surrogate_id)
    assert (email.kind, email.status, email.recipient_id) == ("dr-approved", "queued", case.parent_id)
    assert email.recipient_email == parent.email
    approved_at = email.variables.pop("approved_at")
    assert datetime.fromisoformat(approved_at).tzinfo is not None
    assert email.variables == {
        "case_number": case.case_number,
        "disbursement_request_id": request,
        "amount_cents": 4_200,
        "category": "travel",
        "payee_name": payee.full_name,
        "description": "Flight to the clinic",
    }


def test_inactive_recipients_get_no_email(factory: CaseFactory) -> None:
    case = factory.case()
    factory.change(User, case.parent_id, is_active=False)
    request = factory.request(case)
    approve(factory)
    assert set(factory.emails()) == {f"dr-approved:{request}:{user}" for user in (case.rep_id, case.manager_id)}


def test_person_with_two_roles_in_a_case_gets_one_email(factory: CaseFactory) -> None:
    case = factory.case()
    with factory.sessions.begin() as session:
        session.add(CaseParty(case_id=case.case_id, user_id=case.rep_id, role="intended_parent"))
        session.add(CaseParty(case_id=case.case_id, user_id=case.manager_id, role="ip_rep"))
    factory.request(case)
    assert approve(factory).emails == 3


def test_case_without_recipients_is_still_approved_with_an_alert(factory: CaseFactory) -> None:
    case = factory.case(case_manager_id=None)
    for user in (case.parent_id, case.rep_id):
        factory.change(User, user, is_active=False)
    request = factory.request(case)
    assert approve(factory).emails == 0
    assert list(factory.approvals()) == [request]
    with factory.sessions() as session:
        alert = session.scalars(select(Alert)).one()
    assert (alert.rule, alert.subject) == ("notifications_failing", "dr-approved emails without a recipient")
    assert f"about 1 approved disbursement request (id {request})" in alert.detail


def test_second_run_changes_nothing(factory: CaseFactory) -> None:
    for _ in range(3):
        factory.request(factory.case())
    approve(factory)
    approvals, emails = factory.approvals(), set(factory.emails())
    assert approve(factory) == ApprovalReport()
    assert factory.approvals() == approvals
    assert set(factory.emails()) == emails


def test_concurrent_runs_approve_each_request_once(factory: CaseFactory) -> None:
    cases = [factory.case() for _ in range(4)]
    requests = [factory.request(case) for case in cases for _ in range(25)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: approve(factory), range(4)))
    assert sum(report.count for report in reports) == len(requests)
    assert sum(report.emails for report in reports) == len(factory.emails()) == 3 * len(requests)
    assert set(factory.approvals()) == set(requests)


def test_killed_connection_leaves_no_changes_and_the_next_run_approves(factory: CaseFactory) -> None:
    request = factory.request(factory.case())
    with factory.sessions() as doomed:
        approve_due(doomed)
        backend = doomed.scalar(text("select pg_backend_pid()"))
        with factory.sessions() as killer:
            killer.execute(text("select pg_terminate_backend(:backend, 60000)"), {"backend": backend})
        with pytest.raises(OperationalError):
            doomed.commit()
    assert factory.approvals() == {}
    assert factory.emails() == {}
    approve(factory)
    assert list(factory.approvals()) == [request]
    assert len(factory.emails()) == 3


def test_dry_run_previews_the_approvals_and_changes_nothing(factory: CaseFactory) -> None:
    for _ in range(3):
        factory.request(factory.case(), 1_000)
    factory.request(factory.case(), on_hold=True)
    with factory.sessions.begin() as session:
        preview = preview_due(session)
    assert factory.approvals() == {}
    assert factory.emails() == {}
    report = approve(factory)
    assert (preview.count, preview.amount_cents, preview.shown) == (report.count, report.amount_cents, report.shown)
    assert preview.emails == 0


def test_reopened_case_is_approved_by_the_next_run(factory: CaseFactory) -> None:
    case = factory.case(status="closed")
    request = factory.request(case)
    approve(factory)
    factory.change(Case, case.case_id, status="active")
    approve(factory)
    assert list(factory.approvals()) == [request]
