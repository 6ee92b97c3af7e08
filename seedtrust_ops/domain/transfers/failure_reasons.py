"""What people are told about a failed transfer: what happened, what to do next, and whether the cause is ours.

It reads `failure_reason`, which is the bank's code, the bank's words, or what preflight found. It decides nothing about
the transfer itself.
"""

from dataclasses import dataclass
from enum import StrEnum

from seedtrust_ops.domain.transfers.status_transitions import NOT_SENT_PREFIX


class Cause(StrEnum):
    """Who has to do something about a failed transfer; the value is shown to on-call."""

    PAYEE = "the payee's bank details"
    OFFICE = "the request or its case"
    OURS = "ours"
    """Our funds, keys, limits, or a change while it was being sent: on-call is notified of a single one."""


@dataclass(frozen=True)
class Explanation:
    """What happened, as a sentence; what to do next, as a sentence; and the cause."""

    what: str
    next_step: str
    cause: Cause

    @property
    def text(self) -> str:
        """Both sentences."""
        return f"{self.what} {self.next_step}"


_NEW_BATCH = "put the payment into a new batch"
_CORRECT_PAYEE = f"Correct the payee's bank details, then {_NEW_BATCH}."
_ASK_OPERATIONS = f"Operations has been alerted. Once the cause is gone, {_NEW_BATCH}."
_CHECK_REQUEST = f"Check the request. If it is still to be paid, {_NEW_BATCH}."

_BANK_CODES = {
    "invalid_account": Explanation("The bank refused the account.", _CORRECT_PAYEE, Cause.PAYEE),
    "invalid_amount": Explanation("The bank refused the amount.", _ASK_OPERATIONS, Cause.OURS),
    "insufficient_funds": Explanation("Our funding account did not cover it.", _ASK_OPERATIONS, Cause.OURS),
    "limit_exceeded": Explanation("It exceeded a limit of our account at the bank.", _ASK_OPERATIONS, Cause.OURS),
}
_NOT_SENT = (
    ("can't be decrypted", _ASK_OPERATIONS, Cause.OURS),
    ("encrypted for another transaction", _ASK_OPERATIONS, Cause.OURS),
    ("after preflight", _CHECK_REQUEST, Cause.OURS),
    ("may still arrive at the bank", "Wait until its first payment is settled.", Cause.OURS),
    ("may already have paid", "Wait until that payment is settled; do not pay it again.", Cause.OURS),
    ("keeps that answer under its idempotency key", _CHECK_REQUEST, Cause.OFFICE),
    ("its case has no account", f"Open an account for the case, then {_NEW_BATCH}.", Cause.OURS),
    ("routing number", _CORRECT_PAYEE, Cause.PAYEE),
    ("account number", _CORRECT_PAYEE, Cause.PAYEE),
    ("account_number_last4", _CORRECT_PAYEE, Cause.PAYEE),
    ("name must be", f"Correct the payee's name, then {_NEW_BATCH}.", Cause.PAYEE),
    ("payee", _CORRECT_PAYEE, Cause.PAYEE),
    ("the case's account has", f"Get the case's account funded, then {_NEW_BATCH}.", Cause.OFFICE),
    ("disbursement request", _CHECK_REQUEST, Cause.OFFICE),
    ("the amount of", _CHECK_REQUEST, Cause.OFFICE),
)
"""By a part of what preflight found, the first that fits: what to do, and the cause."""


def explain_failure(reason: str | None) -> Explanation:
    """Return what to tell people about a transaction with this `failure_reason`.

    What nobody has foreseen among our own reasons counts as ours, so that on-call is notified of it.
    """
    if reason in _BANK_CODES:
        return _BANK_CODES[reason]
    if not reason:
        return Explanation("No reason was recorded.", _ASK_OPERATIONS, Cause.OURS)
    if reason.startswith(NOT_SENT_PREFIX):
        found = reason.removeprefix(NOT_SENT_PREFIX)
        what = f"Not sent: {found}."
        for part, next_step, cause in _NOT_SENT:
            if part in found:
                return Explanation(what, next_step, cause)
        return Explanation(what, _ASK_OPERATIONS, Cause.OURS)
    if reason.startswith("settled by "):
        return Explanation(f"It was {reason}.", _CHECK_REQUEST, Cause.OFFICE)
    return Explanation(f"The bank rejected it: {reason}.", _CORRECT_PAYEE, Cause.PAYEE)
