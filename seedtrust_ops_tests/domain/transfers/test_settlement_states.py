"""Settling in every state of transfer, batch and request: all four records follow the decision, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.transfers.attempts import idempotency_key, record_bank_findings, start_attempts
from seedtrust_ops.domain.transfers.evidence import record_missing, record_refusals, record_sends
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.domain.transfers.settlement import SettleAs, Settlement, SettlementRefused, settle
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses, fail_transactions
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import (
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerCorrection,
    LedgerEntry,
    TransferEvidence,
)
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.support.tiers import long_version

CENTS = 5_000
BALANCE = 9_000
ACCEPTED, COMPLETED, REJECTED, RETURNED = BankStatus
SAID: dict[str, Sequence[BankStatus]] = {
    "unknown": [],
    "refused": [],
    "accepted": [ACCEPTED],
    "completed": [ACCEPTED, COMPLETED],
    "rejected": [ACCEPTED, REJECTED],
    "returned": [ACCEPTED, COMPLETED, RETURNED],
    "contradicted": [ACCEPTED, COMPLETED, RETURNED, COMPLETED],
    "forgotten": [ACCEPTED],
    "deleted": [ACCEPTED],
}
"""What the bank has said of a transfer in each state."""
BATCHES = ("draft", "queued", "processing", "held", "completed", "completed_with_errors", "failed")
REQUESTS = ("approved", "denied", "cancelled", "pending")


@dataclass(frozen=True)
class Sent:
    case: BuiltCase
    batch_id: int
    request_id: int
    transaction_id: int
    answer: BankTransfer | None


def send(company: Company, state: str, batch: str, request: str) -> Sent:
    """Bring a transfer into the state; a person has given its request another status while it was in flight."""
    case = company.case(balance_cents=BALANCE)
    batch_id = company.batch(case=case, status="processing")
    request_id = company.request(case, CENTS)
    transaction_id = company.transaction(batch_id, request_id, CENTS, method="ach", status="processing")
    answers = [answer_of(transaction_id, status, minute) for minute, status in enumerate(SAID[state])]
    with company.sessions.begin() as session:
        record_sends(session, [transaction_id])
        start_attempts(session, [transaction_id])
        session.execute(update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(status=request))
        for answer in answers:
            apply_bank_statuses(session, {transaction_id: answer})
            record_bank_findings(session, {transaction_id: answer}, "a test")
        if state == "refused":
            record_refusals(session, [transaction_id])
            fail_transactions(session, {transaction_id: "insufficient_funds"}, from_status="processing")
        if state == "forgotten":
            record_missing(session, [transaction_id], datetime.now(UTC) - timedelta(hours=1), 0)
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).values(status=batch))
        if state == "deleted":
            session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id))
    return Sent(case, batch_id, request_id, transaction_id, answers[-1] if answers and state != "forgotten" else None)


def answer_of(transaction_id: int, status: BankStatus, minute: int) -> BankTransfer:
    at = datetime.now(UTC) - timedelta(hours=1, minutes=-minute)
    return BankTransfer(
        f"tr_{transaction_id}",
        idempotency_key(transaction_id),
        status,
        "ach",
        CENTS,
        str(transaction_id),
        at,
        at,
        return_code="R01" if status is RETURNED else None,
    )


def settle_by_hand(
    session: Session, sent: Sent, settle_as: SettleAs, *, contradict: bool = True, grace: float = 0
) -> None:
    decision = Settlement(sent.transaction_id, settle_as, "as Huntington says", "ana", contradict, grace)
    attest(session, Operator("ana"), "as Huntington says")
    settle(session, decision, sent.answer)


def records(company: Company, sent: Sent) -> tuple[str, int, int, str, str]:
    """The transaction's status, the sum of its entries, what moved on the account, and request and batch."""
    corrections = select(LedgerCorrection.ledger_entry_id).where(LedgerCorrection.transaction_id == sent.transaction_id)
    with company.sessions() as session:
        status = session.scalar(
            select(HuntingtonTransaction.status).where(HuntingtonTransaction.id == sent.transaction_id)
        )
        cents = session.scalars(
            select(func.coalesce(func.sum(LedgerEntry.amount_cents), 0)).where(
                or_(LedgerEntry.huntington_transaction_id == sent.transaction_id, LedgerEntry.id.in_(corrections))
            )
        ).one()
    return (
        status or "deleted",
        int(cents),
        company.balance_cents(sent.case.account_id) - BALANCE,
        company.request_status(sent.request_id),
        company.batch_row(sent.batch_id).status,
    )


def expected_records(state: str, settle_as: SettleAs, batch: str, request: str) -> tuple[str, int, int, str, str]:
    moved = -CENTS if settle_as is SettleAs.COMPLETED else 0
    finished = "completed" if settle_as is SettleAs.COMPLETED else "failed"
    return (
        "deleted" if state == "deleted" else settle_as.value,
        moved,
        moved,
        "paid" if settle_as is SettleAs.COMPLETED else request,
        batch if batch in ("draft", "queued") or state == "deleted" else finished,
    )


def check_settling(company: Company, state: str, settle_as: SettleAs) -> None:
    for batch, request in product(BATCHES, REQUESTS):
        sent = send(company, state, batch, request)
        with company.sessions.begin() as session:
            settle_by_hand(session, sent, settle_as)
        assert records(company, sent) == expected_records(state, settle_as, batch, request), (batch, request)
        with company.sessions() as session:
            assert session.get_one(TransferEvidence, sent.transaction_id).settled_as == settle_as
    assert company.unbalanced_accounts() == []


@pytest.mark.parametrize("settle_as", SettleAs)
@pytest.mark.parametrize("state", ["accepted", "contradicted"])
def test_settling_works_in_every_state_of_batch_and_request(company: Company, state: str, settle_as: SettleAs) -> None:
    check_settling(company, state, settle_as)


@long_version(of="domain/transfers/test_settlement_states.py::test_settling_works_in_every_state_of_batch_and_request")
@pytest.mark.parametrize("settle_as", SettleAs)
@pytest.mark.parametrize("state", [state for state in SAID if state not in ("accepted", "contradicted")])
def test_settling_works_in_every_state_of_the_transfer(company: Company, state: str, settle_as: SettleAs) -> None:
    check_settling(company, state, settle_as)


@pytest.mark.parametrize("settle_as", SettleAs)
@pytest.mark.parametrize("state", [state for state in SAID if state != "deleted"])
def test_settling_is_refused_under_a_live_lease_in_every_state(
    company: Company, state: str, settle_as: SettleAs
) -> None:
    sent = send(company, state, "processing", "approved")
    before = records(company, sent)
    with company.sessions.begin() as session:
        acquire_lease(session, sent.batch_id, "run-of-another", 60)
    with company.sessions.begin() as session, pytest.raises(SettlementRefused, match="Run run-of-another is sending"):
        settle_by_hand(session, sent, settle_as)
    assert records(company, sent) == before


@pytest.mark.parametrize("state", [state for state, said in SAID.items() if not said or state == "forgotten"])
def test_failed_is_refused_within_the_grace_time_if_the_bank_knows_nothing(company: Company, state: str) -> None:
    sent = send(company, state, "processing", "approved")
    before = records(company, sent)
    with company.sessions.begin() as session, pytest.raises(SettlementRefused, match="may still be on its way"):
        settle_by_hand(session, sent, SettleAs.FAILED, grace=600)
    assert records(company, sent) == before


AGREES = {
    ("completed", SettleAs.COMPLETED),
    ("contradicted", SettleAs.COMPLETED),
    ("rejected", SettleAs.FAILED),
    ("unknown", SettleAs.FAILED),
    ("refused", SettleAs.FAILED),
    ("returned", SettleAs.RETURNED),
}


@pytest.mark.parametrize("settle_as", SettleAs)
@pytest.mark.parametrize("state", [state for state in SAID if state != "forgotten"])
def test_contradicting_the_bank_needs_the_flag_in_every_state(
    company: Company, state: str, settle_as: SettleAs
) -> None:
    sent = send(company, state, "processing", "approved")
    if (state, settle_as) in AGREES:
        with company.sessions.begin() as session:
            settle_by_hand(session, sent, settle_as, contradict=False)
        assert records(company, sent)[0] == settle_as
        return
    before = records(company, sent)
    with company.sessions.begin() as session, pytest.raises(SettlementRefused, match="--contradict-bank"):
        settle_by_hand(session, sent, settle_as, contradict=False)
    assert records(company, sent) == before
