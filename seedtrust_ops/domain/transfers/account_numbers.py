"""The one place where a payee's account number is decrypted: the function that builds the bank's request.

Everything else, checks included, sees a `TransferOrder` whose number shows its last four digits at most.
"""

import re
from typing import Protocol

from seedtrust_ops.bank import AccountNumber, TransferOrder
from seedtrust_ops.domain.transfers.bank import idempotency_key
from seedtrust_ops.tables import HuntingtonTransaction


class FieldCipher(Protocol):
    """Decrypts the platform's encrypted columns."""

    def decrypt(self, token: str) -> str:
        """Return the plain text of `token`, or raise `UnreadableToken`."""
        ...

    def opens(self, token: str) -> bool:
        """Return whether `token` was made with a key at hand, without showing what it holds."""
        ...


class BadAccountNumber(Exception):
    """What was decrypted is not an account number; the message says why without showing it."""


def build_order(transaction: HuntingtonTransaction, cipher: FieldCipher, funding_account_id: str) -> TransferOrder:
    """Return the bank's order for `transaction`, its account number decrypted.

    Raises:
        UnreadableToken: when the stored token can't be decrypted.
        BadAccountNumber: when the number is not 4 to 17 digits (bank_api.yaml, counterparty).
    """
    number = cipher.decrypt(transaction.account_number_encrypted)
    if not re.fullmatch(r"[0-9]{4,17}", number):
        raise BadAccountNumber("the account number is not 4 to 17 digits")
    return TransferOrder(
        idempotency_key=idempotency_key(transaction.id),
        method=transaction.method,
        amount_cents=transaction.amount_cents,
        funding_account_id=funding_account_id,
        payee_name=transaction.payee_name,
        routing_number=transaction.routing_number,
        account_number=AccountNumber(number),
        account_type=transaction.account_type,
        reference=str(transaction.id),
    )
