"""The record of attempts: what was about to be sent, and what came of it, one appended row each.

It is history and evidence; a transaction's present status is the platform's column.
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
    """What a row of `ops.transfer_attempts` says."""

    STARTED = "started"
    """Committed before the request leaves; the only outcome without `finished_at`."""
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    REJECTED = "rejected"
    RETURNED = "returned"
    REFUSED = "refused"
    """422: final, nothing moved."""
    KEY_REUSED = "key_reused"
    """409: the bank has this key with another body."""
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    """No readable answer; the bank must be asked about the key before anything else happens."""
    UNKNOWN_TO_BANK = "unknown_to_bank"
    """The bank said, after the grace time, that it does not know the key: back to pending."""


@dataclass(frozen=True)
class StartedAttempt:
    """An attempt that was committed; `number` counts the transaction's requests from 1."""

    transaction_id: int
    number: int
    started_at: datetime


@dataclass(frozen=True)
class AttemptEnd:
    """What came of an attempt; `detail` is for people and holds no account number."""

    attempt: StartedAttempt
    outcome: Outcome
    bank_transfer_id: str | None = None
    detail: str | None = None
    key: str | None = None
    """The bank's key of it, where it is not ours."""


def start_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Record that a request for each of the transactions is about to leave; return the attempts by id."""
    if not transaction_ids:
        return {}
    latest = last_attempts(session, transaction_ids)
    news = array_table(
        "news",
        [("transaction_id", BigInteger()), ("idempotency_key", Text()), ("attempt", Integer())],
        [(one, idempotency_key(one), latest[one].number + 1 if one in latest else 1) for one in transaction_ids],
    )
    started = session.execute(
        insert(TransferAttempt)
        .from_select(
            ["transaction_id", "idempotency_key", "attempt", "outcome", "started_at"],
            select(*news.c, literal(Outcome.STARTED.value), func.clock_timestamp()),
        )
        .returning(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
    )
    return {row.transaction_id: StartedAttempt(*row) for row in started}


def end_attempts(session: Session, ends: Sequence[AttemptEnd]) -> None:
    """Append what came of attempts."""
    if not ends:
        return
    news = array_table(
        "news",
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
        insert(TransferAttempt).from_select([*news.c.keys(), "finished_at"], select(*news.c, func.clock_timestamp()))
    )


def found_at_bank(session: Session, found: Mapping[int, BankTransfer], detail: str) -> None:
    """Append what asking the bank found of transactions, to their latest attempt.

    Attempt 0 stands for a transfer that was never sent by us, but found at the bank by its reference.
    """
    latest = last_attempts(session, found)
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


def last_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Return the latest attempt of each transaction that we ever tried to send."""
    rows = session.execute(
        select(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
        .ext(distinct_on(TransferAttempt.transaction_id))
        .where(in_array(TransferAttempt.transaction_id, transaction_ids))
        .order_by(TransferAttempt.transaction_id, TransferAttempt.attempt.desc(), TransferAttempt.id.desc())
    )
    return {row.transaction_id: StartedAttempt(*row) for row in rows}
