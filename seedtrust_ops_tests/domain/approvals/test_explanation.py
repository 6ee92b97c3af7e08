"""The explanation says for every rule why it matches or not, and agrees with what a run then does."""

from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.approvals.explanation import UnknownDisbursementRequest, explain
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops_tests.support.case_factory import CaseFactory

ZONE = ZoneInfo("America/New_York")


def explain_request(factory: CaseFactory, request_id: int) -> list[str]:
    with factory.sessions() as session:
        return explain(session, request_id, ZONE)


def test_rules_are_explained_one_per_line_in_evaluation_order(factory: CaseFactory) -> None:
    case = factory.case(balance_cents=100_000, minimum_balance_cents=95_000)
    request = factory.request(case, 10_000)
    last = factory.rule(name="Anything", position=9)
    first = factory.rule(name="Legal", position=1, category="legal fees", max_amount_cents=500)
    second = factory.rule(name="Careful", position=2, keep_minimum_balance=True)
    third = factory.rule(name="Daily limit", position=3, daily_limit_cents=7_500)
    fourth = factory.rule(name="Off", position=4, is_enabled=False)
    fifth = factory.rule(name="Travel", position=5, category="travel")
    lines = explain_request(factory, request)
    assert lines[0].startswith(f"Request {request}: $100.00 for 'travel', case {case.case_id}")
    assert lines[1:] == [
        f"Rule {first} 'Legal' (position 1) does not match: it applies only to category 'legal fees'; "
        "its maximum amount is $5.00.",
        f"Rule {second} 'Careful' (position 2) does not match: the account must keep its minimum balance; "
        "after approved, unpaid requests it is $50.00 above the minimum.",
        f"Rule {third} 'Daily limit' (position 3) does not match: $75.00 of its daily limit of $75.00 is left today.",
        f"Rule {fourth} 'Off' (position 4) does not match: it is disabled.",
        f"Rule {fifth} 'Travel' (position 5) matches.",
        f"Rule {last} 'Anything' (position 9) also matches, but rule {fifth} comes first.",
        f"Rule {fifth} approves it in the next run.",
    ]


def test_older_requests_use_up_limits_first(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=10_000)
    now = datetime.now(UTC)
    young = factory.request(factory.case(), 6_000, requested_at=now - timedelta(days=1))
    factory.request(factory.case(), 6_000, requested_at=now - timedelta(days=2))
    assert "$40.00 of its daily limit of $100.00 is left today" in explain_request(factory, young)[1]
    assert explain_request(factory, young)[-1] == "No rule approves it."


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"on_hold": True}, "it is on hold"), ({"status": "denied"}, "it is denied, not pending")],
    ids=["on hold", "denied"],
)
def test_ineligible_request_is_explained_with_its_reason(
    factory: CaseFactory, columns: dict[str, object], reason: str
) -> None:
    factory.rule()
    lines = explain_request(factory, factory.request(factory.case(), **columns))
    assert lines[1].endswith("matches.")
    assert lines[-1] == f"No rule approves it: {reason}."


def test_approved_request_is_explained_as_if_it_were_pending(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=10_000, keep_minimum_balance=True)
    request = factory.request(factory.case(balance_cents=10_000), 10_000)
    run_in_transaction(factory.sessions, partial(approve_by_rules, zone=ZONE))
    lines = explain_request(factory, request)
    assert lines[1].endswith("matches.")
    assert lines[-1] == "No rule approves it: it is approved, not pending."


def test_missing_rules_are_stated_in_the_explanation(factory: CaseFactory) -> None:
    assert explain_request(factory, factory.request(factory.case()))[-1] == "No rule approves it: there are no rules."


def test_unknown_request_raises_a_readable_error(factory: CaseFactory) -> None:
    with pytest.raises(UnknownDisbursementRequest, match="There is no disbursement request 404"):
        explain_request(factory, 404)


def test_explanation_matches_what_a_run_then_does(factory: CaseFactory) -> None:
    factory.rule(daily_limit_cents=25_000, keep_minimum_balance=True, position=1)
    factory.rule(category="travel", max_amount_cents=9_000, position=2)
    now = datetime.now(UTC)
    requests = [
        factory.request(factory.case(balance_cents=balance), amount, requested_at=now - timedelta(hours=9 - number))
        for number, (balance, amount) in enumerate(
            [(20_000, 12_000), (5_000, 8_000), (50_000, 14_000), (50_000, 13_000), (1_000, 9_001), (0, 9_000)]
        )
    ]
    predicted = {
        request: line.removeprefix("Rule ").split()[0]
        for request in requests
        if (line := explain_request(factory, request)[-1]).endswith("approves it in the next run.")
    }
    run_in_transaction(factory.sessions, partial(approve_by_rules, zone=ZONE))
    assert {request: f"auto:rule:{rule}" for request, rule in predicted.items()} == factory.approvals()
    assert len(predicted) == 4
