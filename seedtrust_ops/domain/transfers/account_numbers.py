"""Decrypts payees' account numbers, in one place only: `build_order`, which builds the request to the bank.

All other code, including the check for invalid numbers, sees a `TransferOrder` that shows at most the last four digits.
See docs/decisions/preflight.md.
"""

import re

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.sending_context import BatchRun, FieldCipher
from seedtrust_ops.errors import DamagedToken, SeedTrustError, UnreadableToken
from seedtrust_ops.ports.bank import AccountNumber, TransferOrder
from seedtrust_ops.tables import HuntingtonTransaction

_PAGE_SIZE = 500
_MAX_TOKENS_COMPARED = 20


class WrongFieldKey(SeedTrustError):
    """SEEDTRUST_FIELD_KEY decrypts none of the account numbers."""


class InvalidAccountNumber(Exception):
    """The decrypted value is not a valid account number; the message gives the reason without the value."""


def build_order(transaction: HuntingtonTransaction, run: BatchRun) -> TransferOrder:
    """Return the order to send to the bank for `transaction`, with its account number decrypted.

    Raises:
        UnreadableToken: if the stored token cannot be decrypted.
        InvalidAccountNumber: if the number is not 4 to 17 digits (bank_api.yaml, counterparty).
    """
    number = run.cipher.decrypt(transaction.account_number_encrypted)
    if not re.fullmatch(r"[0-9]{4,17}", number):
        raise InvalidAccountNumber("the account number is not 4 to 17 digits")
    return TransferOrder(
        idempotency_key=idempotency_key(transaction.id),
        method=transaction.method,
        amount_cents=transaction.amount_cents,
        funding_account_id=run.options.funding_account_id,
        payee_name=transaction.payee_name,
        routing_number=transaction.routing_number,
        account_number=AccountNumber(number),
        account_type=transaction.account_type,
        reference=str(transaction.id),
    )


def find_account_number_problems(session: Session, run: BatchRun) -> dict[int, str]:
    """Check the account numbers of the batch's pending transactions; return the problems by transaction id.

    Runs before any row is locked, because decryption is slow.

    Raises:
        WrongFieldKey: if the configured keys decrypt no account number at all; nothing is changed.
    """
    query = (
        select(HuntingtonTransaction)
        .where(HuntingtonTransaction.batch_id == run.batch_id, HuntingtonTransaction.status == "pending")
        .execution_options(yield_per=_PAGE_SIZE)
    )
    problems = {}
    seen = unreadable = 0
    for transaction in session.scalars(query):
        seen += 1
        try:
            build_order(transaction, run)
        except InvalidAccountNumber as error:
            problems[transaction.id] = str(error)
        except UnreadableToken as error:
            unreadable += not isinstance(error, DamagedToken)
            problems[transaction.id] = (
                "the account number can't be decrypted: the stored token is damaged, or its key was removed from "
                "SEEDTRUST_FIELD_KEY"
            )
    if unreadable and unreadable == seen:
        _raise_if_wrong_key(session, run.batch_id, run.cipher, is_only_one=seen == 1)
    return problems


def _raise_if_wrong_key(session: Session, batch_id: int, cipher: FieldCipher, *, is_only_one: bool) -> None:
    """Distinguish a wrong key from a damaged token: the right key decrypts account numbers of other batches.

    If there are no other batches, a single unreadable number counts as damaged and several count as a wrong key.
    """
    tokens = session.scalars(
        select(HuntingtonTransaction.account_number_encrypted)
        .where(or_(HuntingtonTransaction.batch_id != batch_id, HuntingtonTransaction.status != "pending"))
        .order_by(HuntingtonTransaction.id.desc())
        .limit(_MAX_TOKENS_COMPARED)
    ).all()
    if any(cipher.can_decrypt(token) for token in tokens) or (is_only_one and not tokens):
        return
    raise WrongFieldKey(
        f"SEEDTRUST_FIELD_KEY decrypts no account number of batch {batch_id} or of any other recent batch: it is "
        "the wrong key, or the stored numbers are damaged. Nothing was sent or changed. Set the right key; the batch "
        "will then be sent."
    )
