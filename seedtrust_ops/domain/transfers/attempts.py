"""The append-only log of transfer attempts: one row before each request and one for each outcome.

It is evidence, not state: a transaction's current status is in `huntington_transactions.status`.
See docs/decisions/idempotency-key.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import TIMESTAMP, BigInteger, Integer, Text, func, insert, literal, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.ports.bank import BankTransfer
from seedtrust_ops.tables import TransferAttempt


class Outcome(StrEnum):
    """The `outcome` column of `ops.transfer_attempts`."""

    STARTED = "started"
    """Committed before the request is sent; the only outcome without `finished_at`."""
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    REJECTED = "rejected"
    RETURNED = "returned"
    REFUSED = "refused"
    """422: final, no money moved."""
    KEY_REUSED = "key_reused"
    """409: the bank has this key with a different body."""
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    """No readable response; the key must be looked up at the bank before anything else happens."""
    UNKNOWN_TO_BANK = "unknown_to_bank"
    """The bank reported, after the grace period, that it does not know the key: back to `pending`."""


@dataclass(frozen=True)
class StartedAttempt:
    """A committed attempt; `number` counts the transaction's requests from 1."""

    transaction_id: int
    number: int
    started_at: datetime


@dataclass(frozen=True)
class AttemptEnd:
    """The outcome of an attempt; `detail` is for people and never contains an account number."""

    attempt: StartedAttempt
    outcome: Outcome
    bank_transfer_id: str | None = None
    detail: str | None = None
    key: str | None = None
    """The bank's idempotency key, if it is not one of ours."""


def start_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Record that a request for each transaction is about to be sent; return the attempts by transaction id."""
    if not transaction_ids:
        return {}
    latest = latest_attempts(session, transaction_ids)
    new_rows = array_table(
        "new_rows",
        [("transaction_id", BigInteger()), ("idempotency_key", Text()), ("attempt", Integer())],
        [
            (
                transaction_id,
                idempotency_key(transaction_id),
                latest[transaction_id].number + 1 if transaction_id in latest else 1,
            )
            for transaction_id in transaction_ids
        ],
    )
    started = session.execute(
        insert(TransferAttempt)
        .from_select(
            ["transaction_id", "idempotency_key", "attempt", "outcome", "started_at"],
            select(*new_rows.c, literal(Outcome.STARTED.value), func.clock_timestamp()),
        )
        .returning(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
    )
    return {row.transaction_id: StartedAttempt(*row) for row in started}


def end_attempts(session: Session, ends: Sequence[AttemptEnd]) -> None:
    """Append the outcomes of attempts."""
    if not ends:
        return
    new_rows = array_table(
        "new_rows",
        [
            ("transaction_id", BigInteger()),
            ("idempotency_key", Text()),
            ("attempt", Integer()),
            ("outcome", Text()),
            ("bank_transfer_id", Text()),
            ("started_at", TIMESTAMP(timezone=True)),
            ("detail", Text()),
        ],
        [
            (
                end.attempt.transaction_id,
                end.key or idempotency_key(end.attempt.transaction_id),
                end.attempt.number,
                end.outcome.value,
                end.bank_transfer_id,
                end.attempt.started_at,
                end.detail,
            )
            for end in ends
        ],
    )
    session.execute(
        insert(TransferAttempt).from_select(
            [*new_rows.c.keys(), "finished_at"], select(*new_rows.c, func.clock_timestamp())
        )
    )


def record_bank_findings(session: Session, found: Mapping[int, BankTransfer], detail: str) -> None:
    """Append the bank's current status of each transaction to its latest attempt.

    Attempt 0 stands for a transfer that we never sent but found at the bank by its reference.
    """
    latest = latest_attempts(session, found)
    end_attempts(
        session,
        [
            AttemptEnd(
                latest.get(transaction_id) or StartedAttempt(transaction_id, 0, transfer.updated_at),
                Outcome(transfer.status),
                transfer.id,
                detail,
                transfer.idempotency_key,
            )
            for transaction_id, transfer in found.items()
        ],
    )


def latest_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Return the latest attempt of each transaction, by transaction id; those never sent are left out."""
    rows = session.execute(
        select(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
        .ext(distinct_on(TransferAttempt.transaction_id))
        .where(in_array(TransferAttempt.transaction_id, transaction_ids))
        .order_by(TransferAttempt.transaction_id, TransferAttempt.attempt.desc(), TransferAttempt.id.desc())
    )
    return {row.transaction_id: StartedAttempt(*row) for row in rows}
