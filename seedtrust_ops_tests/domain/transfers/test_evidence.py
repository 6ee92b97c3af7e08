"""What is in flight follows from what was sent and what the bank said, whatever people write into the rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_all_of
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.health.settlement import settlement_overdue
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.bank_feed import OVERLAP, record_lost
from seedtrust_ops.domain.transfers.batch_lifecycle import lock_batches
from seedtrust_ops.domain.transfers.batch_processor import AllTransfersFailed
from seedtrust_ops.domain.transfers.evidence import (
    Reading,
    State,
    read_answer,
    record_nothing_sent,
    record_refusals,
    record_sends,
)
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses
from seedtrust_ops.formatting import format_short_date
from seedtrust_ops.ports.bank import BankStatus, BankTransfer, BankUnauthorized
from seedtrust_ops.tables import (
    Account,
    Alert,
    ApprovalRule,
    BankFeedCursor,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerEntry,
    TransferAttempt,
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import LONG_AGO, Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.support.waiters import wait_until

KNOWN_AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
ACCEPTED, COMPLETED, REJECTED, RETURNED = BankStatus
PROGRESS = {
    (known, answer)
    for known, answer in product((None, *BankStatus), BankStatus)
    if known in (None, ACCEPTED, answer) or (known, answer) == (COMPLETED, RETURNED)
}


def bank_answer(status: BankStatus, updated_at: datetime) -> BankTransfer:
    return BankTransfer("tr_1", "key", status, "ach", 100, "1", updated_at, updated_at)


@pytest.mark.parametrize("known", [None, *BankStatus])
@pytest.mark.parametrize("answer", BankStatus)
def test_newer_answer_counts_and_an_older_one_does_not(known: BankStatus | None, answer: BankStatus) -> None:
    readings = [
        read_answer(known, KNOWN_AT, bank_answer(answer, KNOWN_AT + timedelta(seconds=seconds)))
        for seconds in (-1, 0, 1)
    ]
    newer = Reading.CURRENT if (known, answer) in PROGRESS else Reading.CONTRADICTION
    # Within one tick of the bank's clock, 'accepted' cannot be told from what came after it.
    same = Reading.OLDER if newer is Reading.CONTRADICTION and answer is ACCEPTED else newer
    assert readings == [Reading.OLDER, same, newer]


def deny(company: Company, transaction_id: int) -> None:
    set_request(company, transaction_id, status="denied")


def set_request(company: Company, transaction_id: int, **values: object) -> None:
    request = select(HuntingtonTransaction.disbursement_request_id).where(HuntingtonTransaction.id == transaction_id)
    with company.sessions.begin() as session:
        session.execute(
            update(DisbursementRequest).where(DisbursementRequest.id == request.scalar_subquery()).values(**values)
        )


def set_transaction(company: Company, transaction_id: int, **values: object) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id).values(**values)
        )


def pay_again(worker: Worker, company: Company, case: BuiltCase, request_id: int, cents: int = 5_000) -> str:
    """Put the request into a new batch, process it, and return why it was not sent."""
    set_to_approved = update(DisbursementRequest).where(DisbursementRequest.id == request_id)
    with company.sessions.begin() as session:
        session.execute(set_to_approved.values(status="approved"))
    batch_id = company.batch(case=case)
    company.transaction(batch_id, request_id, cents, method="ach")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    assert worker.posts(transaction.id) == 0
    return transaction.failure_reason or ""


def request_of(company: Company, transaction_id: int) -> int:
    with company.sessions() as session:
        request_id = session.scalar(
            select(TransferEvidence.disbursement_request_id).where(TransferEvidence.transaction_id == transaction_id)
        )
    assert request_id is not None
    return request_id


@pytest.mark.parametrize("status", ["denied", "cancelled", "pending"])
def test_return_restores_the_status_that_a_person_gave(worker: Worker, company: Company, status: str) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    request_id = request_of(company, transaction_id)
    set_request(company, transaction_id, status=status)
    worker.bank.control.settle()
    worker.heal()
    assert company.request_status(request_id) == "paid"
    assert ("paid_without_approval", f"request {request_id}") in company.open_alerts()

    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()

    assert company.request_status(request_id) == status
    assert company.ledger(transaction_id) == [("disbursement", -5_000), ("reversal", 5_000)]


def test_request_denied_while_in_flight_opens_an_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    deny(company, transaction_id)
    worker.heal()
    worker.heal()
    assert company.open_alerts() == [("paid_without_approval", f"request {request_of(company, transaction_id)}")]
    accepted_at = evidence_of(company, transaction_id).bank_created_at
    assert accepted_at is not None
    with company.sessions() as session:
        alert = session.scalars(select(Alert)).one()
    assert f" is being paid (by {format_short_date(settles_on('ach', accepted_at))}) although" in alert.detail
    assert alert.occurrences == 1


def test_return_restores_an_approval(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.settle()
    worker.heal()
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    assert company.request_status(request_of(company, transaction_id)) == "approved"
    assert company.open_alerts() == []


@pytest.mark.parametrize("hand_set_status", [None, "failed"])
def test_request_with_a_return_is_never_approved_automatically(
    worker: Worker, company: Company, hand_set_status: str | None
) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.return_reference(str(transaction_id), "R03")
    worker.heal()
    if hand_set_status is not None:
        set_transaction(company, transaction_id, status=hand_set_status)
    set_request(company, transaction_id, status="pending", auto_authorize_at=LONG_AGO)
    with company.sessions.begin() as session:
        session.add(ApprovalRule(name="everything", max_amount_cents=10_000_000, keep_minimum_balance=False))

    run_in_transaction(company.sessions, approve_due)
    run_in_transaction(company.sessions, partial(approve_by_rules, zone=UTC))

    assert company.request_status(request_of(company, transaction_id)) == "pending"


CHANGES: dict[str, Callable[[Company, int], None]] = {
    "failed": lambda company, one: set_transaction(company, one, status="failed", failure_reason="set by hand"),
    "pending": lambda company, one: set_transaction(company, one, status="pending"),
    "returned": lambda company, one: set_transaction(company, one, status="returned"),
    "deleted": lambda company, one: delete_transaction(company, one),
    "assigned to another request": lambda company, one: set_transaction(company, one, disbursement_request_id=None),
}


def delete_transaction(company: Company, transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_row_frees_neither_its_request_nor_its_cents(worker: Worker, company: Company, change: str) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    CHANGES[change](company, transaction_id)

    reason = pay_again(worker, company, case, request_id)
    other = pay_again(worker, company, case, company.request(case, 5_000))

    assert reason == (f"not sent: transaction {transaction_id} may already have paid disbursement request {request_id}")
    assert "the case's account has 4000 cents available after what is in flight" in other


@pytest.mark.parametrize("change", ["failed", "pending", "returned"])
def test_status_set_by_hand_is_corrected_from_the_bank(worker: Worker, company: Company, change: str) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    CHANGES[change](company, transaction_id)

    worker.heal()
    statuses = [transaction_status(company, transaction_id)]
    worker.bank.control.settle()
    worker.heal()

    assert [*statuses, transaction_status(company, transaction_id)] == ["submitted", "completed"]
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


def transaction_status(company: Company, transaction_id: int) -> str:
    with company.sessions() as session:
        return session.scalars(
            select(HuntingtonTransaction.status).where(HuntingtonTransaction.id == transaction_id)
        ).one()


def unknown_transfer(worker: Worker, transaction_id: int) -> tuple[str, str]:
    """The alert about the transfer of a transaction that explains it no more."""
    return "unknown_transfer", f"bank transfer {worker.bank_transfers([transaction_id])[transaction_id]['id']}"


def test_deleted_transaction_that_settles_opens_an_alert(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    delete_transaction(company, transaction_id)
    worker.bank.control.settle()
    worker.heal()
    assert unknown_transfer(worker, transaction_id) in company.open_alerts()
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_reassigned_transaction_is_booked_to_the_request_it_was_sent_for(worker: Worker, company: Company) -> None:
    case, other = company.case(balance_cents=9_000), company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    other_request = company.request(other, 5_000)
    set_transaction(company, transaction_id, disbursement_request_id=other_request)
    worker.bank.control.settle()
    worker.heal()
    assert (company.request_status(request_id), company.request_status(other_request)) == ("paid", "approved")
    assert (company.balance_cents(case.account_id), company.balance_cents(other.account_id)) == (4_000, 9_000)


def send_without_answer(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    """Process a batch whose one request never reaches the bank's books and gets no answer."""
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach")
    key = idempotency_key(transaction_id)
    worker.bank.control.inject_fault("reset_before_commit", method="POST", idempotency_key=key)
    worker.process(batch_id)
    assert transaction_status(company, transaction_id) == "processing"
    return batch_id, transaction_id


def test_unknown_outcome_failed_by_hand_still_blocks_and_is_asked_about(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = send_without_answer(worker, company, case)
    request_id = request_of(company, transaction_id)
    CHANGES["failed"](company, transaction_id)
    assert worker.heal(grace_seconds=600).inquiry.looked_up == 1
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    # The bank does not know the key after the grace period. A late arrival may still pay it, for a day.
    worker.heal()
    assert transaction_status(company, transaction_id) == "failed"
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(unknown_to_bank_at=LONG_AGO))
        session.execute(update(HuntingtonTransaction).values(updated_at=LONG_AGO))
    batch_id = company.batch(case=case)
    company.transaction(batch_id, request_id, 5_000, method="ach")
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["submitted"]


def test_legacy_transaction_set_back_to_pending_blocks_its_request(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 5_000)
    legacy = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    company.transaction(legacy, request_id, 5_000, status="processing", updated_at=LONG_AGO)
    worker.heal()
    assert company.statuses(legacy) == ["pending"]
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == legacy).values(status="held"))
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_contradiction_blocks_until_it_is_settled(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    request_id = request_of(company, transaction_id)
    control = worker.bank.control
    for change in (control.settle, lambda: control.return_reference(str(transaction_id), "R01")):
        change()
        worker.heal()
    assert company.request_status(request_id) == "approved"
    control.dishonor_reference(str(transaction_id))
    worker.heal()
    worker.heal()

    assert company.open_alerts() == [("bank_contradicts_itself", f"transaction {transaction_id}")]
    assert transaction_status(company, transaction_id) == "returned"
    with company.sessions.begin() as session:
        resolve_all_of(session, ["bank_contradicts_itself"], f"transaction {transaction_id}")
    assert "may already have paid" in pay_again(worker, company, case, request_id)
    other = pay_again(worker, company, case, company.request(case, 5_000))
    assert "4000 cents available after what is in flight" in other


@pytest.mark.parametrize(
    "record",
    [
        lambda session, transaction_id: record_sends(session, [transaction_id]),
        lambda session, transaction_id: record_refusals(session, [transaction_id]),
        lambda session, transaction_id: record_nothing_sent(session, {transaction_id: 2}),
    ],
)
def test_contradiction_outlasts_a_send_in_progress(
    worker: Worker, company: Company, record: Callable[[Session, int], None]
) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(state=State.CONTRADICTED, bank_transfer_id=None))
        record(session, transaction_id)
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).all() == [State.CONTRADICTED]


def test_lagging_lookup_opens_no_alert_and_resends_nothing(worker: Worker, company: Company) -> None:
    case = company.case()
    _, accepted = worker.submit_ach(case)
    _, unanswered = send_without_answer(worker, company, case)
    worker.bank.control.inject_fault("lagging_lookup", method="GET", path="/v1/transfers", times=None)
    report = worker.heal(grace_seconds=600)
    assert (report.inquiry.looked_up, company.open_alerts()) == (2, [])

    with company.sessions.begin() as session:
        session.execute(
            update(TransferEvidence).values(missing_since=TransferEvidence.missing_since - timedelta(hours=1))
        )
    worker.heal(grace_seconds=600)
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {accepted}")]
    assert transaction_status(company, unanswered) == "processing"

    worker.bank.control.clear_faults()
    worker.heal()
    worker.heal()
    assert company.open_alerts() == []
    assert transaction_status(company, unanswered) == "pending"


def test_lost_key_counts_as_forgotten_although_the_feed_has_the_transfer(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.heal(grace_seconds=600)
    worker.bank.control.forget_key(idempotency_key(transaction_id))
    worker.heal(grace_seconds=600)
    with company.sessions.begin() as session:
        missing_since = TransferEvidence.missing_since - timedelta(hours=1)
        session.execute(update(TransferEvidence).values(missing_since=missing_since))
    worker.heal(grace_seconds=600)
    worker.heal(grace_seconds=600)
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {transaction_id}")]


def test_transfer_that_draws_only_errors_is_sent_five_times(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    (transaction,) = company.transactions(batch_id)
    key = idempotency_key(transaction.id)
    worker.bank.control.inject_fault("error_before_commit", method="POST", idempotency_key=key, times=None, status=500)
    for _ in range(7):
        if company.batch_row(batch_id).status == "queued":
            worker.process(batch_id)
        worker.heal()

    assert worker.posts(transaction.id) == 5
    assert company.statuses(batch_id) == ["processing"]
    assert company.open_alerts() == [("transfer_undeliverable", f"transaction {transaction.id}")]

    # Whatever a person writes meanwhile, the bank's answer ends the alert.
    CHANGES["failed"](company, transaction.id)
    worker.bank.control.clear_faults()
    worker.bank.control.insert_transfer(reference=str(transaction.id), amount_cents=700, idempotency_key=key)
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]
    assert company.open_alerts() == []


def test_conflict_in_progress_is_an_unknown_outcome(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("in_progress", method="POST")
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["processing"]
    assert company.open_alerts() == []


def test_refusal_counts_only_if_a_lookup_confirms_it(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("refuse", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=None)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["processing"]


def test_transfer_is_sent_again_as_it_was_first_sent(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    worker.heal()
    set_transaction(company, transaction_id, payee_name="Somebody Else", method="wire")
    set_transaction(company, transaction_id, account_number_encrypted=company.cipher.encrypt("4999999999"))

    worker.process(batch_id)

    (transfer,) = worker.bank_transfers([transaction_id]).values()
    assert (transfer["method"], transfer["amount_cents"]) == ("ach", 5_000)


@pytest.mark.parametrize("changed", ["amount", "request"])
def test_transfer_that_was_changed_since_it_was_sent_is_not_sent_again(
    worker: Worker, company: Company, changed: str
) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    worker.heal()
    if changed == "amount":
        set_transaction(company, transaction_id, amount_cents=6_000)
        set_request(company, transaction_id, amount_cents=6_000)
    else:
        set_transaction(company, transaction_id, disbursement_request_id=company.request(case, 5_000))
    with pytest.raises(
        AllTransfersFailed, match="was approved for 6000" if changed == "amount" else "was first sent for"
    ):
        worker.process(batch_id)
    assert worker.posts(transaction_id) == 1


def test_refused_and_unsent_transfers_block_nothing(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=5_000)
    batch_id = company.batch(case=case)
    request_id = company.request(case, 5_000)
    company.transaction(batch_id, request_id, 5_000)
    worker.bank.control.inject_fault("refuse", method="POST")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    again = company.batch(case=case)
    company.transaction(again, request_id, 5_000)
    worker.process(again)
    assert company.statuses(again) == ["completed"]
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state).order_by(TransferEvidence.transaction_id)).all() == [
            "not_moved",
            "moved",
        ]
        assert session.scalars(select(TransferAttempt.id)).all()


@pytest.mark.parametrize("denied", [False, True])
def test_status_that_a_person_wrote_before_the_bank_said_so_is_booked(
    worker: Worker, company: Company, denied: bool
) -> None:
    case = company.case(balance_cents=9_000)
    _, transaction_id = worker.submit_ach(case)
    set_transaction(company, transaction_id, status="completed")
    if denied:
        deny(company, transaction_id)
    worker.bank.control.settle()
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]
    assert company.balance_cents(case.account_id) == 4_000
    assert company.request_status(request_of(company, transaction_id)) == "paid"


def queue_again(company: Company, batch_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonBatch).where(HuntingtonBatch.id == batch_id).values(status="queued"))


def accept(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    return worker.submit_ach(case)


def complete(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.settle()
    worker.heal()
    return batch_id, transaction_id


def dishonor(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = complete(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    worker.bank.control.dishonor_reference(str(transaction_id))
    worker.heal()
    return batch_id, transaction_id


@pytest.mark.parametrize(
    ("send", "lookup", "status", "state"),
    [
        (send_without_answer, None, "processing", State.IN_FLIGHT),
        (accept, None, "submitted", State.IN_FLIGHT),
        (accept, "lagging_lookup", "processing", State.IN_FLIGHT),
        (accept, "error_before_commit", "processing", State.IN_FLIGHT),
        (complete, None, "completed", State.MOVED),
        (complete, "error_before_commit", "processing", State.MOVED),
        (dishonor, None, "processing", State.CONTRADICTED),
    ],
)
def test_transfer_in_doubt_that_was_set_back_to_pending_is_not_sent(
    worker: Worker,
    company: Company,
    send: Callable[[Worker, Company, BuiltCase], tuple[int, int]],
    lookup: str | None,
    status: str,
    state: State,
) -> None:
    batch_id, transaction_id = send(worker, company, company.case())
    set_transaction(company, transaction_id, status="pending")
    set_request(company, transaction_id, status="approved")
    queue_again(company, batch_id)
    if lookup is not None:
        worker.bank.control.inject_fault(lookup, method="GET", path="/v1/transfers", times=None)

    worker.process(batch_id)

    assert worker.posts(transaction_id) == 1
    assert transaction_status(company, transaction_id) == status
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).one() == state


def test_second_transfer_under_the_same_key_is_a_contradiction(worker: Worker, company: Company) -> None:
    _, transaction_id = complete(worker, company, company.case())
    second = BankTransfer(
        "tr_2", idempotency_key(transaction_id), COMPLETED, "ach", 5_000, str(transaction_id), LONG_AGO, LONG_AGO
    )
    for _ in range(2):
        with company.sessions.begin() as session:
            apply_bank_statuses(session, {transaction_id: second})
        worker.heal()
    assert company.open_alerts() == [("bank_contradicts_itself", f"transaction {transaction_id}")]
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).one() == State.CONTRADICTED


def test_amount_changed_to_the_banks_is_booked_with_an_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = send_without_answer(worker, company, company.case())
    set_transaction(company, transaction_id, amount_cents=6_000)
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=6_000, idempotency_key=idempotency_key(transaction_id)
    )
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -6_000)]
    assert ("amount_differs", f"transaction {transaction_id}") in company.open_alerts()


def test_request_that_a_legacy_transfer_gets_later_is_blocked(worker: Worker, company: Company) -> None:
    case = company.case()
    request_id = company.request(case, 5_000)
    batch_id = company.batch(case=case, status="processing", started_at=LONG_AGO, created_at=LONG_AGO)
    transaction_id = company.transaction(batch_id, request_id, 5_000, status="processing", updated_at=LONG_AGO)
    set_transaction(company, transaction_id, disbursement_request_id=None, updated_at=LONG_AGO)
    worker.heal()
    set_transaction(company, transaction_id, disbursement_request_id=request_id)
    assert "may already have paid" in pay_again(worker, company, case, request_id)

    # It is sent as the legacy worker sent it, and what nobody can book is not kept from people.
    worker.bank.control.inject_fault("reset_after_commit", method="POST")
    worker.bank.control.inject_fault("error_before_commit", method="GET", path="/v1/transfers", times=1)
    worker.process(batch_id)
    assert "may already have paid" in pay_again(worker, company, case, request_id)
    worker.bank.control.settle()
    worker.heal()
    assert unknown_transfer(worker, transaction_id) in company.open_alerts()
    assert "may already have paid" in pay_again(worker, company, case, request_id)


def test_key_that_blocks_nothing_any_more_is_left_to_the_feed(worker: Worker, company: Company) -> None:
    _, transaction_id = send_without_answer(worker, company, company.case())
    CHANGES["failed"](company, transaction_id)
    worker.heal()
    assert worker.heal().inquiry.looked_up == 1
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(unknown_to_bank_at=LONG_AGO))
        session.execute(update(HuntingtonTransaction).values(updated_at=LONG_AGO))
    assert worker.heal().inquiry.looked_up == 0

    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=5_000, idempotency_key=idempotency_key(transaction_id)
    )
    worker.heal()
    assert transaction_status(company, transaction_id) == "completed"


def test_account_deleted_meanwhile_opens_an_alert(worker: Worker, company: Company) -> None:
    case = company.case()
    _, transaction_id = worker.submit_ach(case)
    with company.sessions.begin() as session:
        session.execute(delete(LedgerEntry).where(LedgerEntry.account_id == case.account_id))
        session.execute(delete(Account).where(Account.id == case.account_id))
    worker.bank.control.settle()
    worker.heal()
    assert company.open_alerts() == [unknown_transfer(worker, transaction_id)]


def evidence_of(company: Company, transaction_id: int) -> TransferEvidence:
    with company.sessions() as session:
        return session.get_one(TransferEvidence, transaction_id)


def set_evidence(company: Company, **values: object) -> None:
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(**values))


def test_acceptance_time_and_amount_are_kept_as_the_bank_says(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    transfer = worker.bank_transfers([transaction_id])[transaction_id]
    created_at = datetime.fromisoformat(transfer["created_at"])
    known = evidence_of(company, transaction_id)
    assert (known.bank_created_at, known.bank_amount_cents) == (created_at, 5_000)

    # What was recorded by an older release gets them with the bank's next answer.
    set_evidence(company, bank_created_at=None, bank_amount_cents=None)
    worker.heal()
    known = evidence_of(company, transaction_id)
    assert (known.bank_created_at, known.bank_amount_cents) == (created_at, 5_000)


def test_acceptance_time_is_never_in_the_future(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    set_evidence(company, bank_created_at=None)
    answer = BankTransfer(
        id=evidence_of(company, transaction_id).bank_transfer_id or "",
        idempotency_key=idempotency_key(transaction_id),
        status=ACCEPTED,
        method="ach",
        amount_cents=5_000,
        reference=str(transaction_id),
        created_at=datetime(2199, 1, 1, tzinfo=UTC),
        updated_at=datetime.now(UTC) + timedelta(minutes=1),
    )
    with company.sessions.begin() as session:
        apply_bank_statuses(session, {transaction_id: answer})
    recorded = evidence_of(company, transaction_id).bank_created_at
    assert recorded is not None
    assert recorded <= datetime.now(UTC)


@pytest.mark.parametrize("status", ["submitted", "failed"])
def test_overdue_settlement_is_found_until_the_bank_settles_it(worker: Worker, company: Company, status: str) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    set_transaction(company, transaction_id, status=status)

    def overdue() -> list[str]:
        with company.sessions() as session:
            return [one.subject for one in settlement_overdue(session, now=datetime.now(UTC))]

    assert overdue() == []
    set_evidence(company, bank_created_at=LONG_AGO)
    assert overdue() == [f"batch {batch_id}"]
    worker.bank.control.settle()
    worker.heal()
    assert overdue() == []


def refuse(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach")
    worker.bank.control.inject_fault("refuse", method="POST")
    with pytest.raises(AllTransfersFailed):
        worker.process(batch_id)
    return batch_id, transaction_id


def reject(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = worker.submit_ach(case)
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")
    worker.heal()
    return batch_id, transaction_id


def return_(worker: Worker, company: Company, case: BuiltCase) -> tuple[int, int]:
    batch_id, transaction_id = complete(worker, company, case)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()
    return batch_id, transaction_id


@pytest.mark.parametrize(("end", "word"), [(refuse, "refused"), (reject, "rejected"), (return_, "returned")])
def test_transfer_with_a_final_answer_that_was_set_back_is_not_sent(
    worker: Worker, company: Company, end: Callable[[Worker, Company, BuiltCase], tuple[int, int]], word: str
) -> None:
    case = company.case()
    batch_id, transaction_id = end(worker, company, case)
    set_transaction(company, transaction_id, status="pending")
    queue_again(company, batch_id)
    with pytest.raises(AllTransfersFailed, match=f"not sent: the bank has {word} it before"):
        worker.process(batch_id)
    assert worker.posts(transaction_id) == 1
    again = company.batch(case=case)
    company.transaction(again, request_of(company, transaction_id), 5_000)
    worker.process(again)
    assert company.statuses(again) == ["completed"]


def test_unsent_transfer_is_sent_under_the_same_key(worker: Worker, company: Company) -> None:
    batch_id = company.batch([700])
    worker.bank.control.inject_fault("unauthorized", method="POST")
    with pytest.raises(BankUnauthorized):
        worker.process(batch_id)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"]


def test_contradiction_alert_opens_again_until_it_is_settled(worker: Worker, company: Company) -> None:
    _, transaction_id = dishonor(worker, company, company.case())
    with company.sessions.begin() as session:
        resolve_all_of(session, ["bank_contradicts_itself"], f"transaction {transaction_id}")
    for _ in range(2):
        worker.heal()
    with company.sessions() as session:
        (alert,) = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
    assert (alert.rule, alert.occurrences) == ("bank_contradicts_itself", 1)
    assert f"seedtrust-ops transfers settle {transaction_id}" in alert.detail


def test_missing_transfers_are_recorded_without_a_deadlock(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    ids = [company.transaction(batch_id, company.request(case, 100), 100, method="ach") for _ in range(2)]
    worker.process(batch_id)
    with company.sessions.begin() as session:
        # It now lies behind the second row, and a statement that locks the rows as they lie begins with that.
        session.execute(update(TransferEvidence).where(TransferEvidence.transaction_id == ids[0]).values(state="moved"))

    def lock_evidence(session: Session, transaction_id: int) -> None:
        session.execute(
            select(TransferEvidence.state).where(TransferEvidence.transaction_id == transaction_id).with_for_update()
        )

    with ThreadPoolExecutor(1) as pool, company.sessions.begin() as other:
        lock_batches(other, [batch_id])
        lock_evidence(other, ids[0])
        recording = pool.submit(record_missing_once, company, ids)
        wait_until(lambda: is_waiting_for_a_lock(company), what="a wait for a lock")
        lock_evidence(other, ids[1])
        other.rollback()
        recording.result()


def record_missing_once(company: Company, transaction_ids: list[int]) -> None:
    """Record them in one try, because a deadlock is otherwise retried."""
    with company.sessions.begin() as session:
        record_lost(session, transaction_ids, 600)


def is_waiting_for_a_lock(company: Company) -> bool:
    with company.sessions() as session:
        return bool(session.scalar(text("select count(*) from pg_locks where not granted")))


def test_unanswered_transfer_set_to_submitted_is_sent_again_if_the_bank_lacks_it(
    worker: Worker, company: Company
) -> None:
    case = company.case()
    batch_id, transaction_id = send_without_answer(worker, company, case)
    set_transaction(company, transaction_id, status="submitted")
    _, other = send_without_answer(worker, company, case)
    worker.heal()
    # It says nothing of what the bank has had, so nothing is missing, and nothing else waits for it.
    assert company.open_alerts() == []
    assert transaction_status(company, other) == "pending"
    assert (company.batch_row(batch_id).status, company.statuses(batch_id)) == ("queued", ["pending"])


def test_failure_written_over_a_completed_transfer_is_corrected_any_time_later(
    worker: Worker, company: Company
) -> None:
    _, transaction_id = complete(worker, company, company.case())
    set_transaction(company, transaction_id, status="failed")
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(read_up_to=datetime.now(UTC) + OVERLAP))
    worker.heal()
    assert transaction_status(company, transaction_id) == "completed"
    assert worker.heal().inquiry.looked_up == 0
