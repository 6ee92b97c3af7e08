"""The record of attempts: what was about to be sent, and what came of it, one appended row each.

It is history and evidence; a transaction's present status is the platform's column.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.bank import idempotency_key
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


def start_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Record that a request for each of the transactions is about to leave; return the attempts by id."""
    if not transaction_ids:
        return {}
    latest = last_attempts(session, transaction_ids)
    rows = [
        {
            "transaction_id": transaction_id,
            "idempotency_key": idempotency_key(transaction_id),
            "attempt": latest[transaction_id].number + 1 if transaction_id in latest else 1,
            "outcome": Outcome.STARTED,
            "started_at": func.clock_timestamp(),
        }
        for transaction_id in transaction_ids
    ]
    started = session.execute(
        insert(TransferAttempt)
        .values(rows)
        .returning(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
    )
    return {row.transaction_id: StartedAttempt(*row) for row in started}


def end_attempts(session: Session, ends: Sequence[AttemptEnd]) -> None:
    """Append what came of attempts."""
    if not ends:
        return
    session.execute(
        insert(TransferAttempt).values(
            [
                {
                    "transaction_id": end.attempt.transaction_id,
                    "idempotency_key": idempotency_key(end.attempt.transaction_id),
                    "attempt": end.attempt.number,
                    "outcome": end.outcome,
                    "bank_transfer_id": end.bank_transfer_id,
                    "started_at": end.attempt.started_at,
                    "finished_at": func.clock_timestamp(),
                    "detail": end.detail,
                }
                for end in ends
            ]
        )
    )


def last_attempts(session: Session, transaction_ids: Collection[int]) -> dict[int, StartedAttempt]:
    """Return the latest attempt of each transaction that we ever tried to send."""
    rows = session.execute(
        select(TransferAttempt.transaction_id, TransferAttempt.attempt, TransferAttempt.started_at)
        .distinct(TransferAttempt.transaction_id)
        .where(TransferAttempt.transaction_id.in_(transaction_ids))
        .order_by(TransferAttempt.transaction_id, TransferAttempt.attempt.desc(), TransferAttempt.id.desc())
    )
    return {row.transaction_id: StartedAttempt(*row) for row in rows}
