"""Records the bank's responses to a worker's requests, fenced by its lease, many in one transaction.

It routes each kind of response; what a bank status changes is in `status_transitions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.transfers.attempts import AttemptEnd, Outcome, StartedAttempt, end_attempts
from seedtrust_ops.domain.transfers.leases import Lease, lock_lease
from seedtrust_ops.domain.transfers.status_transitions import apply_bank_statuses, fail_transactions, requeue
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

BANK_SUBJECT = "huntington"


@dataclass(frozen=True)
class AttemptResult:
    """An attempt, the bank's response, and the transfer found by a lookup if the response was inconclusive."""

    attempt: StartedAttempt
    response: TransferResponse
    found: BankTransfer | None = None


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
    requeue(session, unsent)
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


UNAUTHORIZED_MESSAGE = (
    "Huntington rejected HUNTINGTON_API_KEY (401). The rejected requests moved no money, and unsent transactions stay "
    "pending. Set the right key and restart; the batch will then be sent automatically."
)


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
        outcome = Outcome(one.found.status)
        bank_transfer_id = one.found.id
        detail = f"{detail}; found by its key" if detail else "found by its key"
    return AttemptEnd(one.attempt, outcome, bank_transfer_id, detail)


def _describe_response(response: TransferResponse) -> tuple[Outcome, str | None, str | None]:
    match response:
        case Originated(transfer):
            return Outcome(transfer.status), transfer.id, transfer.return_code or transfer.reason
        case Refused(code, message):
            return Outcome.REFUSED, None, f"{code}: {message}"
        case IdempotencyConflict():
            return Outcome.KEY_REUSED, None, "the bank has this key with a different body"
        case Unauthorized():
            return Outcome.UNAUTHORIZED, None, None
        case RateLimited(retry_after_seconds):
            return Outcome.RATE_LIMITED, None, f"retry after {retry_after_seconds:g} seconds"
        case NotSent(reason):
            return Outcome.NOT_SENT, None, reason
        case OutcomeUnknown(reason):
            return Outcome.UNKNOWN, None, reason
