"""What is in flight: which transfers may still move money, by what was sent and what the bank said.

One row of `ops.transfer_evidence` per transaction is the only source: what a person writes into a transaction, or that
it is deleted, changes nothing here. What a bank status does to the transaction is in `status_transitions`.
See docs/decisions/in-flight-by-evidence.md.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_parameter, array_table, in_array
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonTransaction,
    LedgerEntry,
    TransferAttempt,
    TransferEvidence,
)

LATE_ARRIVAL_WINDOW = timedelta(days=1)
"""How long a request that the bank did not know may still arrive there and pay its disbursement request."""

MISSING_TRANSFER_RULE = "transfer_forgotten_by_bank"
UNDELIVERABLE_RULE = "transfer_undeliverable"

ORDER_COLUMNS = (
    "disbursement_request_id",
    "account_id",
    "method",
    "amount_cents",
    "payee_name",
    "routing_number",
    "account_number_encrypted",
    "account_number_last4",
    "account_type",
)
"""What a transfer is: a transfer that may be at the bank is only ever sent again as it was first sent."""


class State(StrEnum):
    """The `state` column of `ops.transfer_evidence`."""

    IN_FLIGHT = "in_flight"
    """It was sent, or the bank has it, and nothing says yet that no money moved."""
    MOVED = "moved"
    """The bank reports it as completed."""
    NOT_MOVED = "not_moved"
    """Decisive: refused, rejected, returned, or no byte of it left."""
    CONTRADICTED = "contradicted"
    """The bank has contradicted itself; only a person can settle it."""


_STATES = {
    BankStatus.ACCEPTED: State.IN_FLIGHT,
    BankStatus.COMPLETED: State.MOVED,
    BankStatus.REJECTED: State.NOT_MOVED,
    BankStatus.RETURNED: State.NOT_MOVED,
}


_SETTLED = {"completed": BankStatus.COMPLETED, "returned": BankStatus.RETURNED, "failed": None}
"""What the bank would have said if a person settled a transfer so. After 'failed', nothing is booked that a newer
answer could contradict."""


class Reading(StrEnum):
    """What an answer of the bank means beside what it said before."""

    CURRENT = "current"
    OLDER = "older"
    """It was overtaken by a newer answer, or changes nothing."""
    CONTRADICTION = "contradiction"


def read_answer(known: BankStatus | None, known_at: datetime | None, answer: BankTransfer) -> Reading:
    """Compare an answer of the bank with the newest one before it; newer is by the bank's `updated_at`.

    Args:
        known: the newest status so far, or None.
        known_at: that status's `updated_at`, or None if it was recorded by the legacy worker.
        answer: the new answer.
    """
    if known_at is not None and answer.updated_at < known_at:
        return Reading.OLDER
    if known in (None, BankStatus.ACCEPTED, answer.status):
        return Reading.CURRENT
    if known is BankStatus.COMPLETED and answer.status is BankStatus.RETURNED:
        return Reading.CURRENT
    if answer.status is BankStatus.ACCEPTED and known_at in (None, answer.updated_at):
        # The bank's clock is too coarse to tell them apart, and every transfer is accepted first.
        return Reading.OLDER
    return Reading.CONTRADICTION


@dataclass(frozen=True)
class Answer:
    """An answer of the bank that was recorded; `known` is the status before it.

    `was_missing` is whether lookups had not found the transfer, and now would again. `sent_cents` is what was sent.
    `other_id` is set if the bank had answered with another transfer before, and `was_settled` if the status before it
    is a person's decision.
    """

    reading: Reading
    known: BankStatus | None
    was_missing: bool
    sent_cents: int
    other_id: str | None = None
    was_settled: bool = False


def may_be_at_the_bank() -> ColumnElement[bool]:
    """Return the condition that joins a transaction's evidence if it was sent and may be at the bank."""
    return and_(
        TransferEvidence.transaction_id == HuntingtonTransaction.id, TransferEvidence.state != State.NOT_MOVED.value
    )


def as_first_sent(name: str) -> ColumnElement[Any]:
    """Return a transaction's column, or its value at the first attempt if the query joins `may_be_at_the_bank`."""
    current = getattr(HuntingtonTransaction, name)
    return func.coalesce(getattr(TransferEvidence, name), current, type_=current.type)


def was_name_sent_as_stored() -> ColumnElement[bool]:
    """Return whether the bank may have the payee's name as it is stored; the query joins `may_be_at_the_bank`.

    Before names were normalized, they were sent like that, and a transfer is only ever resent with its first body.
    """
    return func.coalesce(~TransferEvidence.payee_name_normalized, false(), type_=Boolean())


def record_sends(session: Session, transaction_ids: Collection[int]) -> None:
    """Record that these transactions are about to be sent.

    A transaction that may be at the bank already keeps the order as it was first sent.
    """
    if not transaction_ids:
        return
    new = _from_transactions(transaction_ids, state=literal(State.IN_FLIGHT.value))
    statement = insert(TransferEvidence).from_select(list(new.selected_columns.keys()), new)
    keep = TransferEvidence.state != State.NOT_MOVED
    statement = statement.on_conflict_do_update(
        index_elements=[TransferEvidence.transaction_id],
        set_={
            **{
                name: case((keep, getattr(TransferEvidence, name)), else_=statement.excluded[name])
                for name in (*ORDER_COLUMNS, "payee_name_normalized")
            },
            "state": case(
                (TransferEvidence.state == State.CONTRADICTED, State.CONTRADICTED.value), else_=State.IN_FLIGHT.value
            ),
            "unknown_to_bank_at": None,
            "settled_as": None,
            "settled_seen_at": None,
            "changed_at": func.clock_timestamp(),
        },
    )
    session.execute(statement)


def ensure_evidence(session: Session, transaction_ids: Collection[int]) -> None:
    """Insert the evidence of transactions that have none: the legacy worker sent them, or nobody has yet."""
    status = HuntingtonTransaction.status
    is_booked = exists(LedgerEntry.id).where(LedgerEntry.huntington_transaction_id == HuntingtonTransaction.id)
    # A person may have written the status. The bank never said so if there is neither its id nor an entry.
    is_of_the_bank = or_(HuntingtonTransaction.bank_transfer_id.is_not(None), is_booked)
    is_completed, is_returned = and_(status == "completed", is_of_the_bank), and_(status == "returned", is_of_the_bank)
    state = case((is_completed, State.MOVED.value), (is_returned, State.NOT_MOVED.value), else_=State.IN_FLIGHT)
    bank_status = case(
        (is_completed, BankStatus.COMPLETED.value),
        (is_returned, BankStatus.RETURNED.value),
        (status == "submitted", BankStatus.ACCEPTED.value),
        else_=null(),
    )
    new = _from_transactions(transaction_ids, state=state).add_columns(
        bank_status.label("bank_status"), HuntingtonTransaction.bank_transfer_id
    )
    session.execute(
        insert(TransferEvidence).from_select(list(new.selected_columns.keys()), new).on_conflict_do_nothing()
    )


def _from_transactions(transaction_ids: Collection[int], *, state: ColumnElement[str]) -> Select[*tuple[object, ...]]:
    transaction = HuntingtonTransaction
    query: Select[*tuple[object, ...]] = (
        select(
            transaction.id.label("transaction_id"),
            transaction.disbursement_request_id,
            Account.id.label("account_id"),
            *(getattr(transaction, name) for name in ORDER_COLUMNS[2:]),
            true().label("payee_name_normalized"),
            state.label("state"),
        )
        .outerjoin(DisbursementRequest, DisbursementRequest.id == transaction.disbursement_request_id)
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .where(in_array(transaction.id, transaction_ids))
        .order_by(transaction.id)
    )
    return query


def record_answers(session: Session, transfers: Mapping[int, BankTransfer]) -> dict[int, Answer]:
    """Record the bank's answer about each transaction, by transaction id; return what each one means.

    The caller has locked the transactions and called `ensure_evidence`.
    """
    rows = session.execute(
        select(
            TransferEvidence.transaction_id,
            TransferEvidence.state,
            TransferEvidence.amount_cents,
            TransferEvidence.bank_transfer_id,
            TransferEvidence.bank_status,
            TransferEvidence.bank_updated_at,
            TransferEvidence.missing_since,
            TransferEvidence.settled_as,
            TransferEvidence.settled_seen_at,
        )
        .where(in_array(TransferEvidence.transaction_id, transfers))
        .order_by(TransferEvidence.transaction_id)
        .with_for_update()
    ).all()
    answers: dict[int, Answer] = {}
    for row in rows:
        answer = transfers[row.transaction_id]
        if row.settled_as is not None:
            known, known_at = _SETTLED[row.settled_as], row.settled_seen_at
            is_seen = known_at is not None and answer.updated_at <= known_at
            reading = Reading.OLDER if is_seen else read_answer(known, known_at, answer)
        else:
            known = BankStatus(row.bank_status) if row.bank_status is not None else None
            reading = read_answer(known, row.bank_updated_at, answer)
        other_id = row.bank_transfer_id if row.bank_transfer_id != answer.id else None
        if row.state == State.CONTRADICTED and reading is Reading.CURRENT:
            # Whatever the bank says now, it has said something else before.
            reading = Reading.OLDER if known is answer.status else Reading.CONTRADICTION
        if other_id is not None and (row.settled_as is None or reading is not Reading.OLDER):
            # Two transfers, whatever the bank says of each: both may have moved money.
            reading = Reading.CONTRADICTION
        was_missing = row.missing_since is not None and other_id is None
        answers[row.transaction_id] = Answer(
            reading, known, was_missing, row.amount_cents, other_id, row.settled_as is not None
        )
    for one in _with_lost_keys(session, {one: transfers[one] for one, answer in answers.items() if answer.was_missing}):
        # The bank has the transfer and has lost its key: lookups still miss it, so it is not found again.
        answers[one] = replace(answers[one], was_missing=False)
    _store_answers(session, transfers, answers)
    return answers


def _with_lost_keys(session: Session, transfers: Mapping[int, BankTransfer]) -> list[int]:
    """Return the transactions that the bank reports under another key than the one that we sent."""
    if not transfers:
        return []
    sent = session.execute(
        select(TransferAttempt.transaction_id, TransferAttempt.idempotency_key)
        .where(in_array(TransferAttempt.transaction_id, transfers), TransferAttempt.outcome == "started")
        .distinct()
    )
    return [row.transaction_id for row in sent if row.idempotency_key != transfers[row.transaction_id].idempotency_key]


def _store_answers(session: Session, transfers: Mapping[int, BankTransfer], answers: Mapping[int, Answer]) -> None:
    new = array_table(
        "answers",
        [
            ("id", BigInteger()),
            ("state", Text()),
            ("bank_transfer_id", Text()),
            ("bank_status", Text()),
            ("bank_updated_at", TIMESTAMP(timezone=True)),
            ("bank_created_at", TIMESTAMP(timezone=True)),
            ("bank_amount_cents", BigInteger()),
        ],
        [
            (
                one,
                State.CONTRADICTED if answer.reading is Reading.CONTRADICTION else _STATES[transfers[one].status],
                transfers[one].id,
                transfers[one].status.value,
                transfers[one].updated_at,
                transfers[one].created_at,
                transfers[one].amount_cents,
            )
            for one, answer in answers.items()
            if answer.reading is not Reading.OLDER and answer.other_id is None
        ],
    )
    session.execute(
        update(TransferEvidence)
        .where(TransferEvidence.transaction_id == new.c.id)
        .values(
            state=new.c.state,
            bank_transfer_id=new.c.bank_transfer_id,
            bank_status=new.c.bank_status,
            bank_updated_at=new.c.bank_updated_at,
            # A transfer that we have read about is not from the future, whatever the bank's clock says.
            bank_created_at=func.coalesce(
                TransferEvidence.bank_created_at, func.least(new.c.bank_created_at, func.clock_timestamp())
            ),
            bank_amount_cents=new.c.bank_amount_cents,
            unknown_to_bank_at=None,
            settled_as=None,
            settled_seen_at=None,
            changed_at=func.clock_timestamp(),
        )
    )
    others = [one for one, answer in answers.items() if answer.other_id and answer.reading is Reading.CONTRADICTION]
    if others:
        # What was known of the first transfer stays, so that its next answer is compared with that.
        session.execute(
            update(TransferEvidence)
            .where(in_array(TransferEvidence.transaction_id, others))
            .values(
                state=State.CONTRADICTED.value,
                unknown_to_bank_at=None,
                settled_as=None,
                settled_seen_at=None,
                changed_at=func.clock_timestamp(),
            )
        )
    found_again = [one for one, answer in answers.items() if answer.was_missing]
    if found_again:
        session.execute(
            update(TransferEvidence)
            .where(in_array(TransferEvidence.transaction_id, found_again))
            .values(missing_since=None)
        )


def record_refusals(session: Session, transaction_ids: Collection[int]) -> None:
    """Record that the bank has refused these transfers for good: no money moved."""
    if transaction_ids:
        session.execute(
            update(TransferEvidence)
            .where(
                in_array(TransferEvidence.transaction_id, transaction_ids),
                TransferEvidence.state != State.CONTRADICTED,
            )
            .values(state=State.NOT_MOVED.value, unknown_to_bank_at=None, changed_at=func.clock_timestamp())
        )


def record_nothing_sent(session: Session, attempts: Mapping[int, int]) -> None:
    """Record that an attempt (number by transaction id) provably moved no money; earlier attempts still count."""
    if not attempts:
        return
    ended = array_table("ended", [("id", BigInteger()), ("attempt", BigInteger())], attempts.items())
    earlier = and_(
        TransferAttempt.transaction_id == ended.c.id,
        TransferAttempt.attempt < ended.c.attempt,
        TransferAttempt.outcome.in_(("unknown", "unknown_to_bank", "key_reused")),
    )
    unknown_since = (
        select(func.max(TransferAttempt.finished_at))
        .where(earlier, TransferAttempt.outcome == "unknown_to_bank")
        .scalar_subquery()
    )
    session.execute(
        update(TransferEvidence)
        .where(
            TransferEvidence.transaction_id == ended.c.id,
            TransferEvidence.bank_transfer_id.is_(None),
            TransferEvidence.state != State.CONTRADICTED,
        )
        .values(
            state=case((exists().where(earlier), State.IN_FLIGHT.value), else_=State.NOT_MOVED.value),
            unknown_to_bank_at=unknown_since,
            changed_at=func.clock_timestamp(),
        )
    )


def record_unknown_to_bank(session: Session, transaction_ids: Collection[int]) -> None:
    """Record that the bank did not know these keys after the grace period."""
    if transaction_ids:
        session.execute(
            update(TransferEvidence)
            .where(in_array(TransferEvidence.transaction_id, transaction_ids))
            .values(unknown_to_bank_at=func.clock_timestamp(), changed_at=func.clock_timestamp())
        )


def record_doubt(session: Session, transaction_ids: Collection[int], bank_transfer_ids: Collection[str]) -> None:
    """Record that the bank has something under these transactions' keys or its ids that cannot be read.

    Whatever it said before, no money moved is then no longer certain.
    """
    is_certain = or_(TransferEvidence.state == State.NOT_MOVED, TransferEvidence.unknown_to_bank_at.is_not(None))
    session.execute(
        update(TransferEvidence)
        .where(
            or_(
                in_array(TransferEvidence.transaction_id, transaction_ids),
                TransferEvidence.bank_transfer_id == func.any(array_parameter(bank_transfer_ids, Text())),
            ),
            TransferEvidence.state.in_((State.NOT_MOVED.value, State.IN_FLIGHT.value)),
            TransferEvidence.settled_as.is_(None),
            is_certain,
        )
        .values(state=State.IN_FLIGHT.value, unknown_to_bank_at=None, changed_at=func.clock_timestamp())
    )


def record_missing(
    session: Session, transaction_ids: Collection[int], read_at: datetime, grace_seconds: float
) -> list[int]:
    """Record that lookups at `read_at` did not find transfers that the bank had; return those missing for longer.

    A lookup can lag behind for seconds, so a transfer counts as forgotten only after the grace period. The caller has
    locked the transactions' batches.
    """
    if not transaction_ids:
        return []
    session.execute(
        update(TransferEvidence)
        .where(
            in_array(TransferEvidence.transaction_id, transaction_ids),
            TransferEvidence.missing_since.is_(None),
            TransferEvidence.settled_as.is_(None),
        )
        .values(missing_since=read_at)
    )
    return list(
        session.scalars(
            select(TransferEvidence.transaction_id)
            .where(
                in_array(TransferEvidence.transaction_id, transaction_ids),
                TransferEvidence.missing_since <= read_at - timedelta(seconds=grace_seconds),
            )
            .order_by(TransferEvidence.transaction_id)
        )
    )


def is_any_missing() -> ColumnElement[bool]:
    """Return the SQL condition that lookups do not find some transfer that the bank had."""
    return exists().where(TransferEvidence.missing_since.is_not(None))


def needs_inquiry() -> ColumnElement[bool]:
    """Return the SQL condition that the bank must be asked about a transfer; matches the index of these rows."""
    return or_(
        TransferEvidence.state.in_((State.IN_FLIGHT.value, State.CONTRADICTED.value)),
        TransferEvidence.missing_since.is_not(None),
    )


def is_in_flight() -> ColumnElement[bool]:
    """Return the SQL condition that evidence blocks its request and its cents.

    The query outer-joins `HuntingtonTransaction` by its id. A key that the bank does not know blocks while the
    transaction is pending, and for one more day after it failed here or was deleted.
    """
    last_change = func.greatest(TransferEvidence.unknown_to_bank_at, HuntingtonTransaction.updated_at)
    return or_(
        TransferEvidence.state == State.CONTRADICTED,
        and_(
            TransferEvidence.state == State.IN_FLIGHT,
            or_(
                TransferEvidence.unknown_to_bank_at.is_(None),
                HuntingtonTransaction.status.in_(("pending", "processing")),
                last_change > func.now() - LATE_ARRIVAL_WINDOW,
            ),
        ),
    )


def is_in_doubt() -> ColumnElement[bool]:
    """Return the SQL condition that a transfer may be at the bank, and the bank has not said that it is not there.

    A transaction with such evidence is never sent before the bank has been asked, whatever its status.
    """
    return and_(TransferEvidence.state != State.NOT_MOVED.value, TransferEvidence.unknown_to_bank_at.is_(None))


def is_awaiting_settlement() -> ColumnElement[bool]:
    """Return the SQL condition that the bank has accepted a transfer and nobody has said what became of it."""
    return and_(TransferEvidence.bank_status == BankStatus.ACCEPTED.value, TransferEvidence.settled_as.is_(None))


def require_inquiry_of_sent(session: Session, batch_id: int) -> None:
    """Set pending transactions of a batch that may be at the bank to `processing`: somebody has set them back.

    Those that another application holds locked stay pending; they are not sent either.
    """
    transaction = HuntingtonTransaction
    set_back = session.scalars(
        select(transaction.id)
        .where(transaction.batch_id == batch_id, transaction.status == "pending", has_evidence().where(is_in_doubt()))
        .order_by(transaction.id)
        .with_for_update(skip_locked=True)
    ).all()
    if set_back:
        session.execute(
            update(transaction)
            .where(in_array(transaction.id, set_back))
            .values(status="processing", updated_at=func.clock_timestamp())
        )


def has_evidence() -> ColumnElement[bool]:
    """Return the SQL condition that a transaction has evidence."""
    return exists().where(TransferEvidence.transaction_id == HuntingtonTransaction.id)
