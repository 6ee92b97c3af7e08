"""Decrypts payees' account numbers, in one place only: `build_order`, which builds the request to the bank.

All other code, including the check for invalid numbers, sees a `TransferOrder` that shows at most the last four digits.
See docs/decisions/preflight.md.
"""

import re
from dataclasses import dataclass, field

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.evidence import (
    ORDER_COLUMNS,
    as_first_sent,
    may_be_at_the_bank,
    was_name_sent_as_stored,
)
from seedtrust_ops.domain.transfers.payee_names import normalize_payee_name
from seedtrust_ops.domain.transfers.sending_context import BatchRun, FieldCipher
from seedtrust_ops.errors import DamagedToken, SeedTrustError, UnreadableToken
from seedtrust_ops.ports.bank import AccountNumber, TransferOrder
from seedtrust_ops.tables import HuntingtonTransaction, TransferEvidence

_PAGE_SIZE = 500
_MAX_TOKENS_COMPARED = 20
_CONTENT = re.compile(r"(?:(?P<transaction_id>[0-9]+):)?(?P<number>[0-9]{4,17})")
"""What a token contains: a number of the length that the bank accepts (bank_api.yaml, counterparty), bound or not."""


class WrongFieldKey(SeedTrustError):
    """SEEDTRUST_FIELD_KEY decrypts none of the account numbers."""


class InvalidAccountNumber(Exception):
    """The account number must not be used; the message says why, without the number."""


class UndecryptableAccountNumber(InvalidAccountNumber):
    """No configured key opens the token, which is not damaged as far as one can see."""


@dataclass(frozen=True)
class StoredTransfer:
    """What a transaction's order needs, as it is stored: as it was first sent, if the bank may have it already.

    The account number is encrypted.
    """

    id: int
    method: str
    amount_cents: int
    payee_name: str
    routing_number: str = field(repr=False)
    account_number_encrypted: str = field(repr=False)
    account_number_last4: str
    account_type: str
    was_name_sent_as_stored: bool


STORED_TRANSFER = (
    HuntingtonTransaction.id,
    *(as_first_sent(name) for name in ORDER_COLUMNS[2:]),
    was_name_sent_as_stored(),
)
"""The columns of a `StoredTransfer`, in its order; the query outer-joins the evidence with `may_be_at_the_bank`."""


def bind_account_number(number: str, transaction_id: int) -> str:
    """Return what an application encrypts so that the token is good for one transaction only.

    A token of the number alone is good for any transaction whose `account_number_last4` fits.
    """
    return f"{transaction_id}:{number}"


def build_order(transaction: StoredTransfer, run: BatchRun) -> TransferOrder:
    """Return the order to send to the bank for `transaction`, with its account number decrypted.

    Raises:
        InvalidAccountNumber: if the number can't be decrypted or is not 4 to 17 digits, was encrypted for another
            transaction, or does not end in the four digits that people see and approve.
    """
    try:
        content = _CONTENT.fullmatch(run.cipher.decrypt(transaction.account_number_encrypted))
    except UnreadableToken as error:
        kind = InvalidAccountNumber if isinstance(error, DamagedToken) else UndecryptableAccountNumber
        raise kind(
            "the account number can't be decrypted: the stored token is damaged, or its key was removed from "
            "SEEDTRUST_FIELD_KEY"
        ) from None
    if content is None:
        raise InvalidAccountNumber("the account number is not 4 to 17 digits")
    if content["transaction_id"] not in (None, str(transaction.id)):
        raise InvalidAccountNumber("the account number was encrypted for another transaction")
    if not re.fullmatch(r"[0-9]{4}", transaction.account_number_last4):
        raise InvalidAccountNumber(
            "account_number_last4 is not four digits, so nobody can see which account would be paid"
        )
    if not content["number"].endswith(transaction.account_number_last4):
        raise InvalidAccountNumber(
            "the account number does not end in account_number_last4, so another account would be paid than people see"
        )
    name = transaction.payee_name
    return TransferOrder(
        idempotency_key=idempotency_key(transaction.id),
        method=transaction.method,
        amount_cents=transaction.amount_cents,
        funding_account_id=run.options.funding_account_id,
        payee_name=name if transaction.was_name_sent_as_stored else normalize_payee_name(name),
        routing_number=transaction.routing_number,
        account_number=AccountNumber(content["number"]),
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
        select(*STORED_TRANSFER)
        .outerjoin(TransferEvidence, may_be_at_the_bank())
        .where(HuntingtonTransaction.batch_id == run.batch_id, HuntingtonTransaction.status == "pending")
        .execution_options(yield_per=_PAGE_SIZE)
    )
    problems = {}
    seen = undecryptable = 0
    for row in session.execute(query):
        seen += 1
        transaction = StoredTransfer(*row)
        try:
            build_order(transaction, run)
        except InvalidAccountNumber as error:
            undecryptable += isinstance(error, UndecryptableAccountNumber)
            problems[transaction.id] = str(error)
    if undecryptable and undecryptable == seen:
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
