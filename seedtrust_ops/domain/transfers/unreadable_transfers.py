"""Transfers that the bank reports and that we cannot read: they are unknown, never absent.

What a readable transfer means is in `status_transitions`.
"""

from seedtrust_ops.domain.transfers.attempts import parse_idempotency_key
from seedtrust_ops.ports.bank import BankTransfer, BankTransfers, UnreadableTransfer


def require_own_references(found: BankTransfers) -> BankTransfers:
    """Return the transfers without those that have our key and a foreign reference, which count as unreadable."""
    checked = BankTransfers(unreadable=list(found.unreadable))
    for transfer in found.readable:
        transaction_id = parse_idempotency_key(transfer.idempotency_key)
        if transaction_id is None or transfer.reference == str(transaction_id):
            checked.readable.append(transfer)
        else:
            checked.unreadable.append(_as_unreadable(transfer, transaction_id))
    return checked


def _as_unreadable(transfer: BankTransfer, transaction_id: int) -> UnreadableTransfer:
    return UnreadableTransfer(
        transfer.id,
        transfer.idempotency_key,
        transfer.reference,
        f"It has the idempotency key of transaction {transaction_id}, but another reference.",
    )
