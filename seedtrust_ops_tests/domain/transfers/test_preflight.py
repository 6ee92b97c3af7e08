"""Preflight: each rule by itself, and all of them over a batch."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.domain.transfers.preflight import Candidate, find_problems, find_routing_number_problem
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import ROUTING_NUMBER, Company

VALID = Candidate(
    transaction_id=1,
    amount_cents=5_000,
    payee_name="Dana Whitfield",
    routing_number=ROUTING_NUMBER,
    account_number_problem=None,
    request_id=9,
    request_status="approved",
    request_amount_cents=5_000,
    account_id=3,
    conflicting_transaction_id=None,
)


def test_valid_transaction_passes() -> None:
    assert find_problems([VALID], {3: 5_000}) == {}


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"routing_number": "044000025"}, "fails its check digit"),
        ({"routing_number": "04400002"}, "not nine digits"),
        ({"routing_number": "०४४००००२४"}, "not nine digits"),
        ({"account_number_problem": "the account number is not 4 to 17 digits"}, "4 to 17 digits"),
        ({"amount_cents": 10_000_000_000}, "not between 1 and"),
        ({"payee_name": " "}, "payee's name"),
        ({"payee_name": "x" * 36}, "payee's name"),
        ({"payee_name": "Dana\x1bWhitfield"}, "character 5 is U+001B"),
        ({"request_id": None, "request_status": None}, "no disbursement request"),
        ({"request_status": "paid"}, "already paid"),
        ({"request_status": "pending"}, "'pending', not approved"),
        ({"request_status": "cancelled"}, "'cancelled', not approved"),
        ({"request_amount_cents": 4_999}, "was approved for 4999"),
        ({"conflicting_transaction_id": 77}, "transaction 77"),
        ({"account_id": None}, "no account"),
    ],
)
def test_each_flaw_is_named_in_the_reason(flaw: dict[str, object], reason: str) -> None:
    problems = find_problems([replace(VALID, **flaw)], {3: 10**12})
    assert reason in problems[1]


def test_first_of_two_transactions_for_one_request_is_sent() -> None:
    problems = find_problems([VALID, replace(VALID, transaction_id=2)], {3: 10**12})
    assert list(problems) == [2]
    assert "transaction 1 pays it" in problems[2]


def test_invalid_transaction_does_not_block_a_valid_one_for_its_request() -> None:
    flawed = replace(VALID, routing_number="1")
    assert list(find_problems([flawed, replace(VALID, transaction_id=2)], {3: 5_000})) == [1]


@given(
    amounts=st.lists(st.integers(1, 1_000), max_size=20),
    available=st.integers(-500, 5_000),
)
def test_passing_amounts_never_exceed_the_account_balance(amounts: list[int], available: int) -> None:
    candidates = [
        replace(VALID, transaction_id=n, request_id=n, amount_cents=cents, request_amount_cents=cents)
        for n, cents in enumerate(amounts, 1)
    ]
    problems = find_problems(candidates, {3: available})
    passed = [candidate for candidate in candidates if candidate.transaction_id not in problems]
    remaining_cents = available - sum(candidate.amount_cents for candidate in passed)
    assert remaining_cents >= 0 or not passed
    # Nothing is rejected that would have fit in its turn, so no rejected amount is smaller than the rest.
    assert all(candidate.amount_cents > remaining_cents for candidate in candidates if candidate not in passed)


def _is_valid_by_equivalent_rule(digits: str) -> bool:
    """The equivalent form of the ABA rule: weights 7-3-9 over eight digits give the ninth."""
    numbers = [int(digit) for digit in digits]
    weights = (7, 3, 9, 7, 3, 9, 7, 3)
    return sum(weight * number for weight, number in zip(weights, numbers, strict=False)) % 10 == numbers[8]


@given(st.from_regex(r"[0-9]{9}", fullmatch=True).filter(lambda digits: digits != "000000000"))
def test_routing_check_digit_agrees_with_the_equivalent_rule(digits: str) -> None:
    assert (find_routing_number_problem(digits) is None) == _is_valid_by_equivalent_rule(digits)


@pytest.mark.parametrize("routing_number", ["044000024", "021000021", "121000248", "011401533"])
def test_routing_numbers_of_real_banks_pass(routing_number: str) -> None:
    assert find_routing_number_problem(routing_number) is None


def test_balance_must_cover_the_batch_together_with_what_is_in_flight(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=10_000)
    earlier = company.batch(case=case)
    company.transaction(earlier, company.request(case, 6_000), 6_000, method="ach")
    worker.process(earlier)
    batch_id = company.batch([3_000, 2_000, 1_000], case=case)

    worker.process(batch_id)

    assert company.statuses(earlier) == ["submitted"]
    assert company.statuses(batch_id) == ["completed", "failed", "completed"]
    assert "1000 cents available after what is in flight" in (company.transactions(batch_id)[1].failure_reason or "")


@pytest.mark.parametrize(
    "conflict",
    [
        {"status": "submitted"},
        {"status": "processing"},
        {"status": "completed"},
        {"status": "failed", "failure_reason": "timeout after 30s"},
    ],
    ids=lambda conflict: str(conflict["status"]),
)
def test_request_possibly_paid_by_another_transaction_is_not_repaid(
    worker: Worker, company: Company, conflict: dict[str, str]
) -> None:
    case = company.case()
    request_id = company.request(case, 500)
    company.transaction(company.batch(case=case, status="completed"), request_id, 500, **conflict)
    batch_id = company.batch([700], case=case)
    transaction_id = company.transaction(batch_id, request_id, 500)

    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed", "failed"]
    assert worker.posts(transaction_id) == 0


def test_request_whose_transfer_the_bank_refused_may_be_paid_again(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 500)
    company.transaction(
        company.batch(case=case, status="failed", finished_at=datetime.now(UTC)),
        request_id,
        500,
        status="failed",
        failure_reason="invalid_account",
    )
    batch_id = company.batch(case=case)
    company.transaction(batch_id, request_id, 500)
    assert worker.process(batch_id).status == "completed"


def test_preflight_covers_the_whole_batch_before_anything_is_sent(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=900)
    batch_id = company.batch([500, 500], case=case)
    worker.process(batch_id)
    first, second = company.transactions(batch_id)
    assert (first.status, second.status) == ("completed", "failed")
    assert second.updated_at < company.attempts(first.id)[0].started_at
    assert worker.posts(second.id) == 0
