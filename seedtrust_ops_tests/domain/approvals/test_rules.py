"""Which rule approves which request: each condition alone, and all together against a slow reference."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.domain.approvals.rules import (
    Ineligibility,
    RemainingLimits,
    Request,
    Rule,
    RuleMismatch,
    decide,
    ineligibilities,
    rule_mismatches,
)

RULE = Rule(
    id=1,
    name="Small travel",
    position=0,
    is_enabled=True,
    category=None,
    payee_id=None,
    case_id=None,
    max_amount_cents=10_000,
    keep_minimum_balance=False,
    daily_limit_cents=None,
)
REQUEST = Request(
    id=1,
    case_id=7,
    payee_id=8,
    category="travel",
    amount_cents=5_000,
    status="pending",
    on_hold=False,
    case_status="active",
    payee_is_active=True,
    requested_at=datetime(2026, 3, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("rule", "limits", "expected"),
    [
        ({}, {}, []),
        ({"category": "travel", "payee_id": 8, "case_id": 7, "max_amount_cents": 5_000}, {}, []),
        ({"is_enabled": False}, {}, [RuleMismatch.DISABLED]),
        ({"category": "Travel"}, {}, [RuleMismatch.CATEGORY]),
        ({"payee_id": 9}, {}, [RuleMismatch.PAYEE]),
        ({"case_id": 9}, {}, [RuleMismatch.CASE]),
        ({"max_amount_cents": 4_999}, {}, [RuleMismatch.AMOUNT]),
        ({"keep_minimum_balance": True}, {}, [RuleMismatch.NO_ACCOUNT]),
        ({"keep_minimum_balance": True}, {"above_minimum": {7: 5_000}}, []),
        ({"keep_minimum_balance": True}, {"above_minimum": {7: 4_999}}, [RuleMismatch.MINIMUM]),
        ({"keep_minimum_balance": False}, {"above_minimum": {7: -1}}, []),
        ({"daily_limit_cents": 5_000}, {}, []),
        ({"daily_limit_cents": 4_999}, {}, [RuleMismatch.DAILY_LIMIT]),
        ({"daily_limit_cents": 9_999}, {"used_today": {1: 5_000}}, [RuleMismatch.DAILY_LIMIT]),
        ({"daily_limit_cents": 10_000}, {"used_today": {1: 5_000, 2: 5_000}}, []),
        ({"daily_limit_cents": 0}, {}, [RuleMismatch.DAILY_LIMIT]),
        ({"category": "x", "max_amount_cents": 1}, {}, [RuleMismatch.CATEGORY, RuleMismatch.AMOUNT]),
    ],
)
def test_conditions_each_report_their_own_mismatch(
    rule: dict[str, Any], limits: dict[str, dict[int, int]], expected: list[RuleMismatch]
) -> None:
    remaining = RemainingLimits.of(limits.get("above_minimum", {}), limits.get("used_today", {}))
    assert list(rule_mismatches(replace(RULE, **rule), REQUEST, remaining)) == expected


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"status": "denied"}, Ineligibility.NOT_PENDING),
        ({"status": "approved"}, Ineligibility.NOT_PENDING),
        ({"on_hold": True}, Ineligibility.ON_HOLD),
        ({"case_status": "closed"}, Ineligibility.CASE_CLOSED),
        ({"payee_is_active": False}, Ineligibility.PAYEE_INACTIVE),
        ({"has_returned_payment": True}, Ineligibility.PAYMENT_RETURNED),
    ],
)
def test_ineligible_request_is_approved_by_no_rule(columns: dict[str, Any], reason: Ineligibility) -> None:
    request = replace(REQUEST, **columns)
    assert list(ineligibilities(request)) == [reason]
    assert approved([request], [RULE]) == {}


def test_first_match_by_position_then_id_approves() -> None:
    rules = [replace(RULE, id=1, position=5), replace(RULE, id=3, position=2), replace(RULE, id=2, position=2)]
    assert approved([REQUEST], rules) == {1: 2}
    assert approved([REQUEST], [replace(RULE, id=9, position=-1, category="other"), *rules]) == {1: 2}


def test_request_over_a_limit_is_skipped_and_a_smaller_one_approved() -> None:
    requests = [replace(REQUEST, id=n, amount_cents=cents) for n, cents in enumerate((6_000, 5_000, 4_000, 1), 1)]
    assert approved(requests, [replace(RULE, daily_limit_cents=10_000)]) == {1: 1, 3: 1}


def test_rule_with_an_exhausted_daily_limit_yields_to_the_next_rule() -> None:
    requests = [replace(REQUEST, id=n) for n in (1, 2, 3)]
    rules = [replace(RULE, daily_limit_cents=5_000), replace(RULE, id=2, daily_limit_cents=5_000)]
    assert approved(requests, rules) == {1: 1, 2: 2}


def test_approvals_of_one_rule_count_toward_another_rules_minimum() -> None:
    rules = [replace(RULE, category="travel"), replace(RULE, id=2, category="legal fees", keep_minimum_balance=True)]
    requests = [REQUEST, replace(REQUEST, id=2, category="legal fees", amount_cents=1)]
    assert approved(requests, rules, RemainingLimits.of({7: 5_000}, {})) == {1: 1}
    assert approved(requests, rules, RemainingLimits.of({7: 5_001}, {})) == {1: 1, 2: 2}


def test_decision_does_not_modify_its_arguments() -> None:
    limits = RemainingLimits.of({7: 5_000}, {1: 3})
    list(decide([REQUEST], [RULE], limits))
    assert (limits.above_minimum, dict(limits.used_today)) == ({7: 5_000}, {1: 3})


def approved(requests: list[Request], rules: list[Rule], limits: RemainingLimits | None = None) -> dict[int, int]:
    """Return the id of the approving rule by request id."""
    return {approval.request.id: approval.rule.id for approval in decide(requests, rules, limits or RemainingLimits())}


CENTS = st.integers(1, 40)
REQUESTS = st.lists(
    st.builds(
        Request,
        id=st.just(0),
        case_id=st.integers(1, 3),
        payee_id=st.integers(1, 3),
        category=st.sampled_from(["travel", "legal fees"]),
        amount_cents=CENTS,
        status=st.sampled_from(["pending"] * 5 + ["denied"]),
        on_hold=st.sampled_from([False] * 5 + [True]),
        case_status=st.sampled_from(["active", "active", "closing", "closed"]),
        payee_is_active=st.sampled_from([True] * 5 + [False]),
        requested_at=st.just(REQUEST.requested_at),
    ),
    max_size=25,
).map(lambda requests: [replace(request, id=n) for n, request in enumerate(requests, 1)])
RULES = st.lists(
    st.builds(
        Rule,
        id=st.just(0),
        name=st.just("rule"),
        position=st.integers(0, 2),
        is_enabled=st.sampled_from([True, True, True, False]),
        category=st.sampled_from([None, "travel", "legal fees"]),
        payee_id=st.sampled_from([None, None, 1, 2, 3]),
        case_id=st.sampled_from([None, None, 1, 2, 3]),
        max_amount_cents=CENTS,
        keep_minimum_balance=st.booleans(),
        daily_limit_cents=st.none() | st.integers(0, 100),
    ),
    max_size=6,
).map(lambda rules: [replace(rule, id=n) for n, rule in enumerate(rules, 1)])
LIMITS = st.builds(
    RemainingLimits.of,
    st.dictionaries(st.integers(1, 3), st.integers(-20, 100)),
    st.dictionaries(st.integers(1, 6), st.integers(0, 60)),
)


def decide_slowly(requests: list[Request], rules: list[Rule], limits: RemainingLimits) -> dict[int, int]:
    """A second implementation of the approval rules that recomputes every sum from scratch."""
    approvals: list[tuple[Request, Rule]] = []
    for request in requests:
        if request.status != "pending" or request.on_hold or request.case_status == "closed":
            continue
        if not request.payee_is_active:
            continue
        for rule in sorted(rules, key=lambda rule: (rule.position, rule.id)):
            by_rule = sum(
                approved_request.amount_cents
                for approved_request, approving_rule in approvals
                if approving_rule.id == rule.id
            )
            of_case = sum(
                approved_request.amount_cents
                for approved_request, _ in approvals
                if approved_request.case_id == request.case_id
            )
            balance = limits.above_minimum.get(request.case_id)
            matches = (
                rule.is_enabled
                and rule.category in (None, request.category)
                and rule.payee_id in (None, request.payee_id)
                and rule.case_id in (None, request.case_id)
                and request.amount_cents <= rule.max_amount_cents
                and (
                    not rule.keep_minimum_balance
                    or (balance is not None and balance - of_case - request.amount_cents >= 0)
                )
                and (
                    rule.daily_limit_cents is None
                    or limits.used_today.get(rule.id, 0) + by_rule + request.amount_cents <= rule.daily_limit_cents
                )
            )
            if matches:
                approvals.append((request, rule))
                break
    return {request.id: rule.id for request, rule in approvals}


@given(requests=REQUESTS, rules=RULES, limits=LIMITS)
def test_decision_agrees_with_the_slow_reference(
    requests: list[Request], rules: list[Rule], limits: RemainingLimits
) -> None:
    assert approved(requests, rules, limits) == decide_slowly(requests, rules, limits)


@given(requests=REQUESTS, rules=RULES, limits=LIMITS)
def test_skipped_requests_are_not_approved_by_a_second_decision(
    requests: list[Request], rules: list[Rule], limits: RemainingLimits
) -> None:
    first = list(decide(requests, rules, limits))
    rest = [request for request in requests if request.id not in {approval.request.id for approval in first}]
    assert list(decide(rest, rules, limits.after(first))) == []
