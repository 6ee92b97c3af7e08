"""Records the answers that a worker got to its requests, fenced by its lease, many in one transaction.

What a transfer's status means is `outcomes`'; here each kind of answer finds its way there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.transfers.attempts import AttemptEnd, Outcome, StartedAttempt, end_attempts
from seedtrust_ops.domain.transfers.leases import Lease, lock_lease
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses, fail_transactions, requeue
from seedtrust_ops.ports.bank import (
    Answer,
    BankTransfer,
    IdempotencyConflict,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    Unauthorized,
)

BANK = "huntington"


@dataclass(frozen=True)
class AttemptResult:
    """An attempt, the bank's answer to it, and what a look-up by its key found where the answer left doubt."""

    attempt: StartedAttempt
    answer: Answer
    found: BankTransfer | None = None


def record_answers(session: Session, lease: Lease, answered: Sequence[AttemptResult]) -> None:
    """Record `answered`: statuses, ledger, requests, letters, alerts and the ends of the attempts.

    Raises:
        LeaseLost: when the batch is no longer this worker's; nothing is recorded then.
    """
    lock_lease(session, lease)
    words: dict[int, BankTransfer] = {}
    refused: dict[int, str] = {}
    unsent: list[int] = []
    for one in answered:
        transaction_id = one.attempt.transaction_id
        match one.answer:
            case Originated(transfer):
                words[transaction_id] = transfer
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
                    _reused(one),
                )
            case OutcomeUnknown():
                pass
        if one.found is not None:
            words[transaction_id] = one.found
    apply_bank_statuses(session, words)
    fail_transactions(session, refused, was="processing")
    requeue(session, unsent)
    end_attempts(session, [end_of(one) for one in answered])
    _tell_of_our_key(session, answered)


def _tell_of_our_key(session: Session, answered: Sequence[AttemptResult]) -> None:
    if any(isinstance(one.answer, Unauthorized) for one in answered):
        tell_of_refused_key(session)
    elif any(isinstance(one.answer, Originated | Refused) for one in answered):
        resolve_alert(session, "bank_unauthorized", BANK)
        resolve_alert(session, "bank_silent", BANK)
        resolve_alert(session, "bank_rate_limiting", BANK)


def tell_of_refused_key(session: Session) -> None:
    """Open the alert that the bank refuses our API key."""
    open_alert(session, "bank_unauthorized", BANK, "CRITICAL", UNAUTHORIZED_SENTENCE)


def tell_of_silence(session: Session, sentence: str) -> None:
    """Open the alert that the bank answers no request to send, or can't be reached at all."""
    open_alert(session, "bank_silent", BANK, "CRITICAL", sentence)


def tell_of_limits(session: Session, sentence: str) -> None:
    """Open the alert that the bank has let nothing through for a long while."""
    open_alert(session, "bank_rate_limiting", BANK, "HIGH", sentence)


UNAUTHORIZED_SENTENCE = (
    "Huntington does not accept HUNTINGTON_API_KEY (401). Nothing moved by the refused requests, and what was not "
    "sent stays pending. Set the right key and restart; the batch is then sent by itself."
)


def _reused(one: AttemptResult) -> str:
    transaction_id = one.attempt.transaction_id
    says = (
        f"The bank has it as {one.found.amount_cents} cents, {one.found.status}, and that was recorded."
        if one.found is not None
        else "A look-up of the key gave nothing yet; auto-heal goes on asking."
    )
    return (
        f"The bank already has transaction {transaction_id}'s key with another body (409): the transaction was "
        f"changed after it was first sent, or somebody else uses our keys. {says} Compare both before anything "
        "else is paid to this payee."
    )


def end_of(one: AttemptResult) -> AttemptEnd:
    """Return the end of the attempt that `one` answers, for the record."""
    outcome, bank_transfer_id, detail = _what_came(one.answer)
    if one.found is not None:
        outcome = Outcome(one.found.status)
        bank_transfer_id = one.found.id
        detail = f"{detail}; found by its key" if detail else "found by its key"
    return AttemptEnd(one.attempt, outcome, bank_transfer_id, detail)


def _what_came(answer: Answer) -> tuple[Outcome, str | None, str | None]:
    match answer:
        case Originated(transfer):
            return Outcome(transfer.status), transfer.id, transfer.return_code or transfer.reason
        case Refused(code, message):
            return Outcome.REFUSED, None, f"{code}: {message}"
        case IdempotencyConflict():
            return Outcome.KEY_REUSED, None, "the bank has this key with another body"
        case Unauthorized():
            return Outcome.UNAUTHORIZED, None, None
        case RateLimited(retry_after_seconds):
            return Outcome.RATE_LIMITED, None, f"asked to wait {retry_after_seconds:g} seconds"
        case NotSent(reason):
            return Outcome.NOT_SENT, None, reason
        case OutcomeUnknown(reason):
            return Outcome.UNKNOWN, None, reason
