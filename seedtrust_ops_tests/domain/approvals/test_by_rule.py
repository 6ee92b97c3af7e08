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
from seedtrust_ops.domain.approvals.explanation import explain
from seedtrust_ops.domain.approvals.queries import (
    calendar_day,
    database_time,
    load_rules,
    pending_requests,
    remaining_limits,
)
from seedtrust_ops.domain.approvals.writer import ApprovalReport
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.formatting import MAX_TEXT_CHARS
from seedtrust_ops.tables import ApprovalRule, DisbursementRequest, User
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.waiters import wait_until

ZONE = ZoneInfo("America/New_York")


def approve(factory: CaseFactory) -> ApprovalReport:
    return run_in_transaction(factory.sessions, partial(approve_by_rules, zone=ZONE))


def test_matching_rule_is_recorded_as_approver_and_queues_emails(factory: CaseFactory) -> None:
    case = factory.case()
    request = factory.request(case, auto_authorize_at=None)
    rule = factory.rule()
    report = approve(factory)
    assert factory.approvals() == {request: f"auto:rule:{rule}"}
    assert (report.count, report.emails) == (1, 3)
    assert set(factory.emails()) == {
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
def test_mismatching_rule_approves_nothing(factory: CaseFactory, rule: dict[str, Any]) -> None:
    factory.request(factory.case(), 10_000)
    factory.rule(**rule)
    assert approve(factory) == ApprovalReport()
    assert factory.approvals() == {}


@pytest.mark.parametrize(
    ("category", "is_approved"), [("x" * MAX_TEXT_CHARS, True), ("x" * MAX_TEXT_CHARS + "y", False)]
)
@pytest.mark.parametrize("rule_category", ["x" * MAX_TEXT_CHARS + "y", "x" * MAX_TEXT_CHARS + "z", None])
def test_category_too_long_to_compare_matches_no_rule(
    factory: CaseFactory, category: str, is_approved: bool, rule_category: str | None
) -> None:
    request = factory.request(factory.case(), category=category)
    other = factory.request(factory.case())
    factory.rule(category=rule_category, position=1)
    last = factory.rule(category=category, position=2)
    with factory.sessions() as session:
        found = find_first_approval(session, ZONE)
        explained = explain(session, request, ZONE)

    approve(factory)

    approved = factory.approvals()
    assert (request in approved) is is_approved
    assert (other in approved) is (rule_category is None)
    assert (found is None) is (approved == {})
    assert (explained[-1] == "No rule approves it: its category is longer than 2,000 characters.") is not is_approved
    if is_approved and rule_category is not None:
        assert approved[request] == f"auto:rule:{last}"


def test_on_hold_closed_case_and_inactive_payee_are_never_approved(factory: CaseFactory) -> None:
    factory.rule()
    factory.request(factory.case(), on_hold=True)
    factory.request(factory.case(status="closed"))
    case = factory.case()
    factory.change(User, case.surrogate_id, is_active=False)
    factory.request(case)
    approve(factory)
    assert factory.approvals() == {}


def test_minimum_balance_counts_approved_unpaid_requests(factory: CaseFactory) -> None:
    case = factory.case(balance_cents=100_000, minimum_balance_cents=50_000)
    factory.request(case, 30_000, status="approved", approved_by="user:1")
    factory.request(case, 500_000, status="paid")
    factory.request(factory.case(), 90_000, status="approved")
    too_much = factory.request(case, 20_001, requested_at=datetime.now(UTC) - timedelta(days=9))
    fits = factory.request(case, 20_000)
    rule = factory.rule(keep_minimum_balance=True)
    approve(factory)
    assert factory.approvals()[fits] == f"auto:rule:{rule}"
    assert too_much not in factory.approvals()


def test_requests_are_approved_oldest_first(factory: CaseFactory) -> None:
    case = factory.case()
    now = datetime.now(UTC)
    young = factory.request(case, 6_000, requested_at=now - timedelta(days=1))
    old = factory.request(case, 6_000, requested_at=now - timedelta(days=2))
    factory.rule(daily_limit_cents=10_000)
    approve(factory)
    assert list(factory.approvals()) == [old]
    assert young not in factory.approvals()


def test_daily_limit_counts_approvals_since_midnight_office_time(factory: CaseFactory) -> None:
    rule = factory.rule(daily_limit_cents=10_000)
    midnight, _ = calendar_day(datetime.now(UTC), ZONE)
    signed = {"status": "paid", "approved_by": f"auto:rule:{rule}"}
    factory.request(factory.case(), 9_000, **signed, approved_at=midnight - timedelta(microseconds=1))
    factory.request(factory.case(), 4_000, **signed, approved_at=midnight)
    factory.request(factory.case(), 4_000, status="paid", approved_by=f"auto:rule:{rule}0", approved_at=midnight)
    too_much = factory.request(factory.case(), 6_001)
    fits = factory.request(factory.case(), 6_000)
    approve(factory)
    assert list(factory.approvals()) == [fits]
    assert too_much not in factory.approvals()


@pytest.mark.parametrize(
    ("now_text", "day_start", "hours"),
    [
        ("2026-03-07T12:00:00-05:00", "2026-03-07T00:00:00-05:00", 24),
        ("2026-03-08T12:00:00-04:00", "2026-03-08T00:00:00-05:00", 23),
        ("2026-11-01T01:30:00-04:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-01T01:30:00-05:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-02T04:59:59+00:00", "2026-11-01T00:00:00-04:00", 25),
        ("2026-11-02T05:00:00+00:00", "2026-11-02T00:00:00-05:00", 24),
    ],
)
def test_calendar_day_follows_daylight_saving_in_the_office_zone(now_text: str, day_start: str, hours: int) -> None:
    start, end = calendar_day(datetime.fromisoformat(now_text), ZONE)
    assert start == datetime.fromisoformat(day_start)
    assert end.astimezone(UTC) - start.astimezone(UTC) == timedelta(hours=hours)


def test_daily_limit_is_exact_under_concurrent_runs(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=50_000)
    for _ in range(40):
        factory.request(factory.case(), 3_000)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: approve(factory), range(4)))
    assert sum(report.count for report in reports) == len(factory.approvals()) == 16
    assert len(factory.emails()) == 16 * 3


def test_concurrent_rule_and_date_runs_approve_each_request_once(factory: CaseFactory) -> None:
    factory.rule()
    requests = [factory.request(factory.case()) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        runs = [approve, lambda factory: run_in_transaction(factory.sessions, approve_due)] * 2
        reports = list(pool.map(lambda run: run(factory), runs))
    assert sum(report.count for report in reports) == 40
    assert set(factory.approvals()) == set(requests)
    assert len(factory.emails()) == 120


def test_second_run_changes_nothing(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=25_000)
    for _ in range(5):
        factory.request(factory.case(), 10_000)
    approve(factory)
    approvals = factory.approvals()
    assert approve(factory) == ApprovalReport()
    assert factory.approvals() == approvals
    assert len(approvals) == 2


def test_request_changed_during_a_run_is_not_approved_with_old_data(factory: CaseFactory) -> None:
    factory.rule(max_amount_cents=10_000)
    request = factory.request(factory.case(), 10_000)
    other = factory.request(factory.case(), 10_000)
    with factory.sessions() as person, ThreadPoolExecutor(1) as pool:
        person.get_one(DisbursementRequest, request).amount_cents = 9_000_000
        person.flush()
        run = pool.submit(approve, factory)
        # Once the run waits for the row that the person holds, it has made its decision.
        lock_waits = text("select count(*) from pg_locks where not granted")
        wait_until(lambda: person.scalar(lock_waits), what="the run to wait for the row")
        person.commit()
        run.result()
    assert list(factory.approvals()) == [other]


def test_dry_run_previews_the_approvals_and_changes_nothing(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=25_000)
    for _ in range(5):
        factory.request(factory.case(), 10_000)
    with factory.sessions.begin() as session:
        preview = preview_by_rules(session, ZONE)
    assert factory.approvals() == {}
    report = approve(factory)
    assert (preview.count, preview.amount_cents, preview.shown) == (report.count, report.amount_cents, report.shown)


@pytest.mark.parametrize(
    ("rule", "amounts", "read"),
    [
        ({"daily_limit_cents": 5_000}, [5_000, 5_001, 9_000], [5_000]),
        ({"daily_limit_cents": 0}, [1, 5_000], []),
        ({"keep_minimum_balance": True}, [3_000, 3_001], [3_000]),
        ({"keep_minimum_balance": True, "daily_limit_cents": 2_000}, [2_000, 3_000], [2_000]),
        ({"max_amount_cents": 2_000, "daily_limit_cents": 9_000}, [2_000, 3_000], [2_000]),
        ({}, [1, 1_000_000], [1, 1_000_000]),
    ],
)
def test_requests_beyond_the_remaining_limits_are_not_read(
    factory: CaseFactory, rule: dict[str, Any], amounts: list[int], read: list[int]
) -> None:
    """Hundreds of thousands may wait for tomorrow's limit, and each evaluation would read them all."""
    case = factory.case(balance_cents=10_000, minimum_balance_cents=7_000)
    factory.rule(**rule)
    for amount in amounts:
        factory.request(case, amount)
    with factory.sessions() as session:
        rules, limits = load_rules(session), remaining_limits(session, database_time(session), ZONE)
        assert [request.amount_cents for request in pending_requests(session, rules, limits)] == read


def test_first_approval_is_found_only_if_a_run_would_approve(factory: CaseFactory) -> None:
    def search() -> int | None:
        with factory.sessions() as session:
            found = find_first_approval(session, ZONE)
            return found.request.id if found else None

    request = factory.request(factory.case(), 10_000)
    assert search() is None
    rule = factory.rule(daily_limit_cents=5_000)
    assert search() is None
    factory.change(ApprovalRule, rule, daily_limit_cents=10_000)
    assert search() == request
    approve(factory)
    assert search() is None
