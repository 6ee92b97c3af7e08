"""Approval by date: what is approved, who is emailed, and that a second run changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from seedtrust_ops.domain.approvals.by_date import approve_due, preview_due
from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.tables import Case, CaseParty, DisbursementRequest, User
from seedtrust_ops_tests.support.office_factory import Office


def approve(office: Office) -> ApprovalReport:
    return run_in_transaction(office.sessions, approve_due)


def test_due_request_is_approved_by_date(office: Office) -> None:
    request = office.request(office.case(), 12_345)
    report = approve(office)
    assert office.approvals() == {request: "auto:date"}
    assert (report.count, report.amount_cents) == (1, 12_345)
    with office.sessions() as session:
        approved_at = session.get_one(DisbursementRequest, request).approved_at
    assert approved_at is not None
    assert datetime.now(UTC) - approved_at < timedelta(minutes=1)


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
def test_ineligible_request_is_not_approved(office: Office, columns: dict[str, Any]) -> None:
    office.request(office.case(), **columns)
    assert approve(office) == ApprovalReport()
    assert office.approvals() == {}
    assert office.emails() == {}


def test_closed_case_gets_no_approval_but_a_closing_case_does(office: Office) -> None:
    office.request(office.case(status="closed"))
    closing = office.request(office.case(status="closing"))
    approve(office)
    assert list(office.approvals()) == [closing]


def test_inactive_payee_gets_no_approval(office: Office) -> None:
    case = office.case()
    office.change(User, case.surrogate_id, is_active=False)
    office.request(case)
    approve(office)
    assert office.approvals() == {}


def test_emails_go_only_to_parents_representatives_and_case_manager(office: Office) -> None:
    case = office.case()
    office.case()
    office.user("admin")
    request = office.request(case, 4_200, description="Flight to the clinic")
    assert approve(office).emails == 3
    emails = office.emails()
    assert set(emails) == {f"dr-approved:{request}:{user}" for user in (case.parent_id, case.rep_id, case.manager_id)}
    email = emails[f"dr-approved:{request}:{case.parent_id}"]
    with office.sessions() as session:
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


def test_inactive_recipients_get_no_email(office: Office) -> None:
    case = office.case()
    office.change(User, case.parent_id, is_active=False)
    request = office.request(case)
    approve(office)
    assert set(office.emails()) == {f"dr-approved:{request}:{user}" for user in (case.rep_id, case.manager_id)}


def test_person_with_two_roles_in_a_case_gets_one_email(office: Office) -> None:
    case = office.case()
    with office.sessions.begin() as session:
        session.add(CaseParty(case_id=case.case_id, user_id=case.rep_id, role="intended_parent"))
        session.add(CaseParty(case_id=case.case_id, user_id=case.manager_id, role="ip_rep"))
    office.request(case)
    assert approve(office).emails == 3


def test_case_without_recipients_is_still_approved(office: Office) -> None:
    case = office.case(case_manager_id=None)
    for user in (case.parent_id, case.rep_id):
        office.change(User, user, is_active=False)
    request = office.request(case)
    assert approve(office).emails == 0
    assert list(office.approvals()) == [request]


def test_second_run_changes_nothing(office: Office) -> None:
    for _ in range(3):
        office.request(office.case())
    approve(office)
    approvals, emails = office.approvals(), set(office.emails())
    assert approve(office) == ApprovalReport()
    assert office.approvals() == approvals
    assert set(office.emails()) == emails


def test_concurrent_runs_approve_each_request_once(office: Office) -> None:
    cases = [office.case() for _ in range(4)]
    requests = [office.request(case) for case in cases for _ in range(25)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: approve(office), range(4)))
    assert sum(report.count for report in reports) == len(requests)
    assert sum(report.emails for report in reports) == len(office.emails()) == 3 * len(requests)
    assert set(office.approvals()) == set(requests)


def test_killed_connection_leaves_no_changes_and_the_next_run_approves(office: Office) -> None:
    request = office.request(office.case())
    with office.sessions() as doomed:
        approve_due(doomed)
        backend = doomed.scalar(text("select pg_backend_pid()"))
        with office.sessions() as killer:
            killer.execute(text("select pg_terminate_backend(:backend, 60000)"), {"backend": backend})
        with pytest.raises(OperationalError):
            doomed.commit()
    assert office.approvals() == {}
    assert office.emails() == {}
    approve(office)
    assert list(office.approvals()) == [request]
    assert len(office.emails()) == 3


def test_dry_run_previews_the_approvals_and_changes_nothing(office: Office) -> None:
    for _ in range(3):
        office.request(office.case(), 1_000)
    office.request(office.case(), on_hold=True)
    with office.sessions.begin() as session:
        preview = preview_due(session)
    assert office.approvals() == {}
    assert office.emails() == {}
    report = approve(office)
    assert (preview.count, preview.amount_cents, preview.shown) == (report.count, report.amount_cents, report.shown)
    assert preview.emails == 0


def test_reopened_case_is_approved_by_the_next_run(office: Office) -> None:
    case = office.case(status="closed")
    request = office.request(case)
    approve(office)
    office.change(Case, case.case_id, status="active")
    approve(office)
    assert list(office.approvals()) == [request]
