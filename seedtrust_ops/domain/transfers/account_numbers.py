"""The one place where a payee's account number is decrypted: the function that builds the bank's request.

Everything else, what says which numbers are wrong included, sees a `TransferOrder` whose number shows its last four
digits at most.
"""

import re
from typing import Protocol

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.errors import DamagedToken, SeedTrustError, UnreadableToken
from seedtrust_ops.ports.bank import AccountNumber, TransferOrder
from seedtrust_ops.tables import HuntingtonTransaction

_ROWS_A_PAGE = 500
_TOKENS_TO_COMPARE = 20


class FieldCipher(Protocol):
    """Decrypts the platform's encrypted columns."""

    def decrypt(self, token: str) -> str:
        """Return the plain text of `token`, or raise `UnreadableToken`."""
        ...

    def opens(self, token: str) -> bool:
        """Return whether `token` was made with a key at hand, without showing what it holds."""
        ...


class WrongFieldKey(SeedTrustError):
    """SEEDTRUST_FIELD_KEY opens none of the account numbers."""


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


def account_number_problems(
    session: Session, batch_id: int, cipher: FieldCipher, funding_account_id: str
) -> dict[int, str]:
    """Return what is wrong with the account numbers of the batch's pending transactions, by transaction id.

    It is done before anything is locked, since decrypting takes its time.

    Raises:
        WrongFieldKey: when the key at hand opens no account number at all; nothing is changed.
    """
    query = (
        select(HuntingtonTransaction)
        .where(HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status == "pending")
        .execution_options(yield_per=_ROWS_A_PAGE)
    )
    problems = {}
    seen = unreadable = 0
    for transaction in session.scalars(query):
        seen += 1
        try:
            build_order(transaction, cipher, funding_account_id)
        except BadAccountNumber as error:
            problems[transaction.id] = str(error)
        except UnreadableToken as error:
            unreadable += not isinstance(error, DamagedToken)
            problems[transaction.id] = (
                "the account number can't be decrypted: its stored token is damaged, or its key is no longer in "
                "SEEDTRUST_FIELD_KEY"
            )
    if unreadable and unreadable == seen:
        _refuse_wrong_key(session, batch_id, cipher, alone=seen == 1)
    return problems


def _refuse_wrong_key(session: Session, batch_id: int, cipher: FieldCipher, *, alone: bool) -> None:
    """Tell a wrong key from a damaged token: the right key opens the account number of some other batch.

    Where there is no other, one unreadable number alone is taken for damaged and several for a wrong key.
    """
    tokens = session.scalars(
        select(HuntingtonTransaction.account_number_encrypted)
        .where(or_(HuntingtonTransaction.batch_id != batch_id, HuntingtonTransaction.status != "pending"))
        .order_by(HuntingtonTransaction.id.desc())
        .limit(_TOKENS_TO_COMPARE)
    ).all()
    if any(cipher.opens(token) for token in tokens) or (alone and not tokens):
        return
    raise WrongFieldKey(
        f"SEEDTRUST_FIELD_KEY opens no account number of batch {batch_id}, nor of any other recent batch: it is "
        "the wrong key, or the stored numbers are damaged. Nothing was sent and nothing was changed; set the "
        "right key and the batch is sent."
    )
