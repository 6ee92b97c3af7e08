"""Puts approved requests of a seeded company into new batches, as operations staff do on the batch screen.

The jobs send them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.seed.money import Encrypt
from seedtrust_ops.sandbox.seed.names import PayeeAccount, payee_account
from seedtrust_ops.tables import DisbursementRequest, HuntingtonBatch, HuntingtonTransaction, User


class NotEnoughApprovedRequests(SeedTrustError):
    """The company has fewer approved requests left than needed."""


@dataclass(frozen=True)
class Payable:
    """An approved request without a transaction."""

    request_id: int
    amount_cents: int
    payee_name: str


@dataclass(frozen=True)
class Payment:
    """One payment of a new batch; `account` None generates one."""

    payable: Payable
    method: str
    account: PayeeAccount | None = None


@dataclass(frozen=True)
class NewBatch:
    """A drafted batch, and its transactions in the order of its payments."""

    batch_id: int
    transaction_ids: list[int]


def payable_requests(session: Session, count: int) -> list[Payable]:
    """Return `count` approved requests that were never in a batch, oldest first.

    Raises:
        NotEnoughApprovedRequests: if there are fewer.
    """
    rows = session.execute(
        select(DisbursementRequest.id, DisbursementRequest.amount_cents, User.full_name)
        .join(User, User.id == DisbursementRequest.payee_id)
        .where(
            DisbursementRequest.status == "approved",
            ~exists().where(HuntingtonTransaction.disbursement_request_id == DisbursementRequest.id),
        )
        .order_by(DisbursementRequest.id)
        .limit(count)
    ).all()
    if len(rows) < count:
        raise NotEnoughApprovedRequests(
            f"{count} approved requests are needed, but the company has only {len(rows)}. Seed more cases."
        )
    return [Payable(*row) for row in rows]


def draft_batch(session: Session, payments: Sequence[Payment], encrypt: Encrypt, *, priority: int = 0) -> NewBatch:
    """Put `payments` into a new batch with status `draft`; return it."""
    batch_id = session.execute(
        insert(HuntingtonBatch).values(status="draft", priority=priority).returning(HuntingtonBatch.id)
    ).scalar_one()
    rng = Random(batch_id)
    rows = []
    for payment in payments:
        account = payment.account or payee_account(rng)
        rows.append(
            {
                "batch_id": batch_id,
                "disbursement_request_id": payment.payable.request_id,
                "method": payment.method,
                "amount_cents": payment.payable.amount_cents,
                "payee_name": payment.payable.payee_name,
                "routing_number": account.routing_number,
                "account_number_encrypted": encrypt(account.account_number),
                "account_number_last4": account.account_number[-4:],
                "account_type": account.account_type,
            }
        )
    ids = session.scalars(
        insert(HuntingtonTransaction).returning(HuntingtonTransaction.id, sort_by_parameter_order=True), rows
    ).all()
    return NewBatch(batch_id, list(ids))


def queue_batches(session: Session, batch_ids: Sequence[int]) -> None:
    """Set drafted batches to `queued`, so that the batch sensor launches them."""
    session.execute(
        update(HuntingtonBatch)
        .where(HuntingtonBatch.id.in_(batch_ids), HuntingtonBatch.status == "draft")
        .values(status="queued", queued_at=func.now())
    )
