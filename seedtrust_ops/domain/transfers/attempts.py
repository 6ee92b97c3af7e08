"""Records each request to the bank: the attempt and its idempotency key before it is sent, and the response after it.

`ops.transfer_attempts` is append-only evidence, not state: a transaction's current status is in
`huntington_transactions.status`, and what a bank status changes is in `status_transitions`.
See docs/decisions/idempotency-key.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Integer,
    SQLColumnExpression,
    Text,
    exists,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.evidence import UNDELIVERABLE_RULE, record_nothing_sent, record_refusals
from seedtrust_ops.domain.transfers.leases import Lease, lock_lease
from seedtrust_ops.domain.transfers.status_transitions import (
    apply_bank_statuses,
    fail_transactions,
    requeue_transactions,
)
from seedtrust_ops.ports.bank import (
    BankTransfer,
    IdempotencyConflict,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferResponse,
    Unauthorized,
)
from seedtrust_ops.tables import TransferAttempt

KEY_PREFIX = "seedtrust-transaction-"
_MAX_ID_DIGITS = 18
MAX_ATTEMPTS_WITHOUT_ANSWER = 5
"""After this many attempts that drew only errors, a transfer is not sent again (docs/rules.md, section 4)."""
BANK_SUBJECT = "huntington"
"""The subject of the alerts about the bank itself."""
UNAUTHORIZED_MESSAGE = (
    "Huntington rejected HUNTINGTON_API_KEY (401). The rejected requests moved no money, and unsent transactions stay "
    "pending. Set the right key and restart; the batch will then be sent automatically."
)


def idempotency_key(transaction_id: int) -> str:
    """Return the transaction's idempotency key. It depends on the id alone, so no crash can lose it."""
    return f"{KEY_PREFIX}{transaction_id}"


def parse_idempotency_key(key: str) -> int | None:
    """Return the transaction id that one of our idempotency keys stands for, or None if the key is not ours."""
    digits = key.removeprefix(KEY_PREFIX)
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_ID_DIGITS:
        return None
    transaction_id = int(digits)
    return transaction_id if idempotency_key(transaction_id) == key else None


class AttemptOutcome(StrEnum):
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
    SETTLED = "settled"
    """A person has decided what became of it (`settlement`)."""
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
    outcome: AttemptOutcome
    bank_transfer_id: str | None = None
    detail: str | None = None
    key: str | None = None
    """The bank's idempotency key, if it is not the one that we use."""


def is_sent_by_us(transaction_id: SQLColumnExpression[int]) -> ColumnElement[bool]:
    """Return the SQL condition that we ever tried to send a transaction under our key.

    Attempt 0 stands for a transfer that we never sent but found at the bank by its reference.
    """
    return exists().where(TransferAttempt.transaction_id == transaction_id, TransferAttempt.attempt > 0)


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
            select(*new_rows.c, literal(AttemptOutcome.STARTED.value), func.clock_timestamp()),
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
    """Append the bank's current status of each transaction to its latest attempt, or to attempt 0 if there is none."""
    latest = latest_attempts(session, found)
    end_attempts(
        session,
        [
            AttemptEnd(
                latest.get(transaction_id) or StartedAttempt(transaction_id, 0, transfer.updated_at),
                AttemptOutcome(transfer.status),
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


def undeliverable(session: Session, transaction_ids: Collection[int]) -> list[int]:
    """Return which transactions have been sent MAX_ATTEMPTS_WITHOUT_ANSWER times without any readable answer."""
    return list(
        session.scalars(
            select(TransferAttempt.transaction_id)
            .where(
                in_array(TransferAttempt.transaction_id, transaction_ids),
                TransferAttempt.outcome == AttemptOutcome.UNKNOWN.value,
            )
            .group_by(TransferAttempt.transaction_id)
            .having(func.count() >= MAX_ATTEMPTS_WITHOUT_ANSWER)
            .order_by(TransferAttempt.transaction_id)
        )
    )


def open_undeliverable_alert(session: Session, transaction_id: int) -> None:
    """Open the alert that a transfer drew only errors and is not sent again."""
    open_alert(
        session,
        UNDELIVERABLE_RULE,
        f"transaction {transaction_id}",
        "HIGH",
        f"Transaction {transaction_id} was sent {MAX_ATTEMPTS_WITHOUT_ANSWER} times. The bank never gave a readable "
        "answer and does not know its key. It stays 'processing', the bank is still asked about it, and it is not sent "
        "again. Its rows in ops.transfer_attempts say what the bank answered: ask Huntington why.",
    )


@dataclass(frozen=True)
class AttemptResult:
    """An attempt, the bank's response, and the transfer found by a lookup if the response was inconclusive."""

    attempt: StartedAttempt
    response: TransferResponse
    found: BankTransfer | None = None

    @property
    def transfer(self) -> BankTransfer | None:
        """What the bank has, as far as the response or the lookup says."""
        return self.response.transfer if self.found is None and isinstance(self.response, Originated) else self.found


def record_responses(session: Session, lease: Lease, results: Sequence[AttemptResult]) -> None:
    """Record the results: statuses, ledger, requests, emails, alerts, and the outcomes of the attempts.

    Raises:
        LeaseLost: if this worker no longer holds the batch; nothing is recorded then.
    """
    lock_lease(session, lease)
    transfers: dict[int, BankTransfer] = {}
    refused: dict[int, str] = {}
    unsent: list[int] = []
    for one in results:
        transaction_id = one.attempt.transaction_id
        match one.response:
            case Originated(transfer):
                transfers[transaction_id] = transfer
            case Refused(code) if one.found is None:
                refused[transaction_id] = code
            case Unauthorized() | NotSent() | RateLimited():
                unsent.append(transaction_id)
            case IdempotencyConflict():
                open_alert(
                    session,
                    "idempotency_key_reused",
                    f"transaction {transaction_id}",
                    "CRITICAL",
                    _describe_conflict(one),
                )
            case OutcomeUnknown():
                pass
        if one.found is not None:
            transfers[transaction_id] = one.found
    apply_bank_statuses(session, transfers)
    fail_transactions(session, refused, from_status="processing")
    record_refusals(session, refused)
    requeue_transactions(session, unsent)
    numbers = {one.attempt.transaction_id: one.attempt.number for one in results}
    record_nothing_sent(session, {transaction_id: numbers[transaction_id] for transaction_id in unsent})
    end_attempts(session, [to_attempt_end(one) for one in results])
    _update_bank_alerts(session, results)


def _update_bank_alerts(session: Session, results: Sequence[AttemptResult]) -> None:
    if any(isinstance(one.response, Unauthorized) for one in results):
        open_unauthorized_alert(session)
    elif any(isinstance(one.response, Originated | Refused) for one in results):
        resolve_alert(session, "bank_unauthorized", BANK_SUBJECT)
        resolve_alert(session, "bank_silent", BANK_SUBJECT)
        resolve_alert(session, "bank_rate_limiting", BANK_SUBJECT)


def open_unauthorized_alert(session: Session) -> None:
    """Open the alert that the bank does not accept our API key."""
    open_alert(session, "bank_unauthorized", BANK_SUBJECT, "CRITICAL", UNAUTHORIZED_MESSAGE)


def open_bank_silent_alert(session: Session, message: str) -> None:
    """Open the alert that the bank does not respond to transfer requests or cannot be reached."""
    open_alert(session, "bank_silent", BANK_SUBJECT, "CRITICAL", message)


def open_rate_limit_alert(session: Session, message: str) -> None:
    """Open the alert that the bank has been rate limiting all requests for a long time."""
    open_alert(session, "bank_rate_limiting", BANK_SUBJECT, "HIGH", message)


def _describe_conflict(one: AttemptResult) -> str:
    transaction_id = one.attempt.transaction_id
    bank_version = (
        f"The bank has it as {one.found.amount_cents} cents, {one.found.status}; this was recorded."
        if one.found is not None
        else "A lookup of the key found no transfer yet; auto-heal will check again."
    )
    return (
        f"The bank already has the idempotency key of transaction {transaction_id} with a different body (409): the "
        "transaction was changed after it was first sent, or somebody else uses our keys. "
        f"{bank_version} Compare both versions before paying this payee again."
    )


def to_attempt_end(one: AttemptResult) -> AttemptEnd:
    """Return the attempt's outcome, as it is recorded in `ops.transfer_attempts`."""
    outcome, bank_transfer_id, detail = _describe_response(one.response)
    if one.found is not None:
        outcome = AttemptOutcome(one.found.status)
        bank_transfer_id = one.found.id
        detail = f"{detail}; found by its key" if detail else "found by its key"
    return AttemptEnd(one.attempt, outcome, bank_transfer_id, detail)


def _describe_response(response: TransferResponse) -> tuple[AttemptOutcome, str | None, str | None]:
    match response:
        case Originated(transfer):
            return AttemptOutcome(transfer.status), transfer.id, transfer.return_code or transfer.reason
        case Refused(code, message):
            return AttemptOutcome.REFUSED, None, f"{code}: {message}"
        case IdempotencyConflict():
            return AttemptOutcome.KEY_REUSED, None, "the bank has this key with a different body"
        case Unauthorized():
            return AttemptOutcome.UNAUTHORIZED, None, None
        case RateLimited(retry_after_seconds):
            return AttemptOutcome.RATE_LIMITED, None, f"retry after {retry_after_seconds:g} seconds"
        case NotSent(reason):
            return AttemptOutcome.NOT_SENT, None, reason
        case OutcomeUnknown(reason):
            return AttemptOutcome.UNKNOWN, None, reason
