"""Approval by rules over the real tables: limits, emails, concurrent runs and dry runs."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules, find_first_approval, preview_by_rules
from seedtrust_ops.domain.approvals.queries import calendar_day
from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.tables import ApprovalRule, DisbursementRequest, User
from seedtrust_ops_tests.support.office_factory import Office
from seedtrust_ops_tests.support.waiters import wait_until

ZONE = ZoneInfo("America/New_York")


def approve(office: Office) -> ApprovalReport:
    return run_in_transaction(office.sessions, partial(approve_by_rules, zone=ZONE))


def test_matching_rule_approves_signs_and_queues_emails(office: Office) -> None:
    case = office.case()
    request = office.request(case, auto_authorize_at=None)
    rule = office.rule()
    report = approve(office)
    assert office.approvals() == {request: f"auto:rule:{rule}"}
    assert (report.count, report.emails) == (1, 3)
    assert set(office.emails()) == {
        f"dr-approved:{request}:{user}" for user in (case.parent_id, case.rep_id, case.manager_id)
    }


@pytest.mark.parametrize(
    "rule",
    [
        {"is_enabled": False},
        {"category": "legal fees"},
        {"max_amount_cents": 9_999},
        {"daily_limit_cents": 9_999},
    ],
    ids=["disabled", "other category", "amount above maximum", "daily limit too low"],
)
def test_mismatching_rule_approves_nothing(office: Office, rule: dict[str, Any]) -> None:
    office.request(office.case(), 10_000)
    office.rule(**rule)
    assert approve(office) == ApprovalReport()
    assert office.approvals() == {}


def test_on_hold_closed_case_and_inactive_payee_are_never_approved(office: Office) -> None:
    office.rule()
    office.request(office.case(), on_hold=True)
    office.request(office.case(status="closed"))
    case = office.case()
    office.change(User, case.surrogate_id, is_active=False)
    office.request(case)
    approve(office)
    assert office.approvals() == {}


def test_minimum_balance_counts_approved_unpaid_requests(office: Office) -> None:
    case = office.case(balance_cents=100_000, minimum_balance_cents=50_000)
    office.request(case, 30_000, status="approved", approved_by="user:1")
    office.request(case, 500_000, status="paid")
    office.request(office.case(), 90_000, status="approved")
    too_much = office.request(case, 20_001, requested_at=datetime.now(UTC) - timedelta(days=9))
    fits = office.request(case, 20_000)
    rule = office.rule(keep_minimum_balance=True)
    approve(office)
    assert office.approvals()[fits] == f"auto:rule:{rule}"
    assert too_much not in office.approvals()


def test_requests_are_approved_oldest_first(office: Office) -> None:
    case = office.case()
    now = datetime.now(UTC)
    young = office.request(case, 6_000, requested_at=now - timedelta(days=1))
    old = office.request(case, 6_000, requested_at=now - timedelta(days=2))
    office.rule(daily_limit_cents=10_000)
    approve(office)
    assert list(office.approvals()) == [old]
    assert young not in office.approvals()


def test_daily_limit_counts_approvals_since_midnight_office_time(office: Office) -> None:
    rule = office.rule(daily_limit_cents=10_000)
    midnight, _ = calendar_day(datetime.now(UTC), ZONE)
    signed = {"status": "paid", "approved_by": f"auto:rule:{rule}"}
    office.request(office.case(), 9_000, **signed, approved_at=midnight - timedelta(microseconds=1))
    office.request(office.case(), 4_000, **signed, approved_at=midnight)
    office.request(office.case(), 4_000, status="paid", approved_by=f"auto:rule:{rule}0", approved_at=midnight)
    too_much = office.request(office.case(), 6_001)
    fits = office.request(office.case(), 6_000)
    approve(office)
    assert list(office.approvals()) == [fits]
    assert too_much not in office.approvals()


@pytest.mark.parametrize(
    ("moment", "begins", "hours"),
    [
        ("2026-03-07T12:00:00-05:00", "2026-03-07T00:00:00-05:00", 24),
        ("2026-03-08T12:00:00-04:00", "2026-03-08T00:00:00-05:00", 23),
        ("2026-11-01T01:30:00-04:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-01T01:30:00-05:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-02T04:59:59+00:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-02T05:00:00+00:00", "2026-11-02T00:00:00-05:00", 24),
    ],
)
def test_calendar_day_follows_daylight_saving_in_the_office_zone(moment: str, begins: str, hours: int) -> None:
    start, end = calendar_day(datetime.fromisoformat(moment), ZONE)
    assert start == datetime.fromisoformat(begins)
    assert end.astimezone(UTC) - start.astimezone(UTC) == timedelta(hours=hours)


def test_daily_limit_is_exact_under_concurrent_runs(office: Office) -> None:
    office.rule(daily_limit_cents=50_000)
    for _ in range(40):
        office.request(office.case(), 3_000)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: approve(office), range(4)))
    assert sum(report.count for report in reports) == len(office.approvals()) == 16
    assert len(office.emails()) == 16 * 3


def test_concurrent_rule_and_date_runs_approve_each_request_once(office: Office) -> None:
    office.rule()
    requests = [office.request(office.case()) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        runs = [approve, lambda office: run_in_transaction(office.sessions, approve_due)] * 2
        reports = list(pool.map(lambda run: run(office), runs))
    assert sum(report.count for report in reports) == 40
    assert set(office.approvals()) == set(requests)
    assert len(office.emails()) == 120


def test_second_run_changes_nothing(office: Office) -> None:
    office.rule(daily_limit_cents=25_000)
    for _ in range(5):
        office.request(office.case(), 10_000)
    approve(office)
    approvals = office.approvals()
    assert approve(office) == ApprovalReport()
    assert office.approvals() == approvals
    assert len(approvals) == 2


def test_request_changed_during_a_run_is_not_approved_with_old_data(office: Office) -> None:
    office.rule(max_amount_cents=10_000)
    request = office.request(office.case(), 10_000)
    other = office.request(office.case(), 10_000)
    with office.sessions() as person, ThreadPoolExecutor(1) as pool:
        person.get_one(DisbursementRequest, request).amount_cents = 9_000_000
        person.flush()
        run = pool.submit(approve, office)
        # Once the run waits for the row that the person holds, it has made its decision.
        lock_waits = text("select count(*) from pg_locks where not granted")
        wait_until(lambda: person.scalar(lock_waits), what="the run to wait for the row")
        person.commit()
        run.result()
    assert list(office.approvals()) == [other]


def test_dry_run_previews_the_approvals_and_changes_nothing(office: Office) -> None:
    office.rule(daily_limit_cents=25_000)
    for _ in range(5):
        office.request(office.case(), 10_000)
    with office.sessions.begin() as session:
        preview = preview_by_rules(session, ZONE)
    assert office.approvals() == {}
    report = approve(office)
    assert (preview.count, preview.amount_cents, preview.shown) == (report.count, report.amount_cents, report.shown)


def test_first_approval_is_found_only_if_a_run_would_approve(office: Office) -> None:
    def search() -> tuple[int | None, int]:
        with office.sessions() as session:
            found = find_first_approval(session, ZONE)
            return (found.first.request.id if found.first else None, found.evaluated)

    request = office.request(office.case(), 10_000)
    assert search() == (None, 0)
    rule = office.rule(daily_limit_cents=5_000)
    assert search() == (None, 1)
    office.change(ApprovalRule, rule, daily_limit_cents=10_000)
    assert search() == (request, 1)
    approve(office)
    assert search() == (None, 0)
