"""Drafts failed payments again: which approved requests may be paid by a new transaction, and to which account.

The draft is a batch that only a person queues. What stands in the way of a payment is decided in `preflight`.
See docs/decisions/failed-payments.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import BigInteger, ColumnElement, SQLColumnExpression, Subquery, case, exists, func, select, union_all
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_parameter, in_array
from seedtrust_ops.domain.transfers.preflight import transfers_in_the_way
from seedtrust_ops.tables import DisbursementRequest, HuntingtonTransaction

UNUSABLE_ACCOUNT_CODES = ("R02", "R03", "R04", "R16", "R20")
"""Closed, no account, invalid number, frozen, not a transaction account (Nacha): another ACH comes back, too."""


@dataclass(frozen=True)
class FailedPayment:
    """An approved request whose newest transaction failed or was returned; amounts in cents.

    `in_the_way` is another transaction that has paid the request or may still pay it. `newer_transaction_id` is the
    payee's newest transaction to an account that is not known to be unusable, of whatever request.
    """

    request_id: int
    amount_cents: int
    transaction_id: int
    reason: str | None
    in_the_way: int | None
    is_account_unusable: bool
    newer_transaction_id: int | None


@dataclass(frozen=True)
class PaymentDraft:
    """A payment to draft: the request, what failed, and the transaction whose payee and account are copied."""

    payment: FailedPayment
    copied_transaction_id: int


@dataclass(frozen=True)
class FailedPaymentsReport:
    """What was drafted, or would be: `batch_id` is None in a dry run, and if there is nothing to draft.

    `left_out` has a reason for each payment that is not drafted.
    """

    batch_id: int | None
    drafts: list[PaymentDraft] = field(default_factory=list)
    left_out: list[tuple[FailedPayment, str]] = field(default_factory=list)

    @property
    def amount_cents(self) -> int:
        """The cents of all drafts."""
        return sum(draft.payment.amount_cents for draft in self.drafts)


def choose_drafts(payments: Iterable[FailedPayment]) -> FailedPaymentsReport:
    """Decide which of the payments are drafted again, and to which account."""
    report = FailedPaymentsReport(None)
    for one in payments:
        if one.in_the_way is not None:
            report.left_out.append((one, f"transaction {one.in_the_way} has paid it or may still pay it"))
        elif not one.is_account_unusable:
            report.drafts.append(PaymentDraft(one, one.transaction_id))
        elif one.newer_transaction_id is not None:
            report.drafts.append(PaymentDraft(one, one.newer_transaction_id))
        else:
            report.left_out.append((one, "the payee's account was returned as unusable and has not changed"))
    return report


def preview_failed_payments(session: Session) -> FailedPaymentsReport:
    """Return what `draft_failed_payments` would draft; change nothing."""
    return choose_drafts(_find_failed_payments(session))


def draft_failed_payments(session: Session) -> FailedPaymentsReport:
    """Put every failed payment that may be made again into one new draft batch, in the caller's transaction.

    The amount is the request's. Payee and account are copied in the database, so that a job can pay no account that
    no person has entered before.
    """
    found = _find_failed_payments(session)
    # Two of these runs at once take turns here, and the second one finds what the first one has drafted.
    session.execute(
        select(DisbursementRequest.id)
        .where(in_array(DisbursementRequest.id, [one.request_id for one in found]))
        .order_by(DisbursementRequest.id)
        .with_for_update()
    )
    report = choose_drafts(_find_failed_payments(session))
    if not report.drafts:
        return report
    batch_id = session.scalars(
        select(
            func.ops.draft_payments(
                array_parameter([draft.payment.request_id for draft in report.drafts], BigInteger()),
                array_parameter([draft.copied_transaction_id for draft in report.drafts], BigInteger()),
            )
        )
    ).one()
    return FailedPaymentsReport(batch_id, report.drafts, report.left_out)


def _find_failed_payments(session: Session) -> Sequence[FailedPayment]:
    transaction, request = HuntingtonTransaction, DisbursementRequest
    newest = (
        select(transaction)
        .ext(distinct_on(transaction.disbursement_request_id))
        .order_by(transaction.disbursement_request_id, transaction.id.desc())
        .subquery("newest")
    )
    in_the_way, unusable, usable = _in_the_way(), _unusable_accounts(), _newest_usable_of_payees()
    rows = session.execute(
        select(
            request.id,
            request.amount_cents,
            newest.c.id,
            newest.c.failure_reason,
            in_the_way.c.transaction_id,
            _is_in(unusable, request.payee_id, newest.c.routing_number, newest.c.account_number_last4),
            case((usable.c.transaction_id > newest.c.id, usable.c.transaction_id)),
        )
        .join(newest, newest.c.disbursement_request_id == request.id)
        .outerjoin(in_the_way, in_the_way.c.request_id == request.id)
        .outerjoin(usable, usable.c.payee_id == request.payee_id)
        .where(request.status == "approved", newest.c.status.in_(("failed", "returned")))
        .order_by(request.id)
    )
    return [FailedPayment(*row) for row in rows]


def _in_the_way() -> Subquery:
    """Return, by request, a transaction that has paid it or may still pay it; one that waits in a draft may, too."""
    at_the_bank = transfers_in_the_way(own_batch_id=None)
    pending = select(HuntingtonTransaction.id, HuntingtonTransaction.disbursement_request_id).where(
        HuntingtonTransaction.status == "pending"
    )
    others = union_all(select(at_the_bank.c.transaction_id, at_the_bank.c.disbursement_request_id), pending).subquery(
        "others"
    )
    return (
        select(
            others.c.disbursement_request_id.label("request_id"),
            func.min(others.c.transaction_id).label("transaction_id"),
        )
        .group_by(others.c.disbursement_request_id)
        .subquery("in_the_way")
    )


def _unusable_accounts() -> Subquery:
    """Return the accounts of payees that were returned as unusable, as far as people see them: the last four digits."""
    transaction = HuntingtonTransaction
    return (
        select(DisbursementRequest.payee_id, transaction.routing_number, transaction.account_number_last4)
        .join(DisbursementRequest, DisbursementRequest.id == transaction.disbursement_request_id)
        .where(transaction.status == "returned", transaction.failure_reason.in_(UNUSABLE_ACCOUNT_CODES))
        .distinct()
        .subquery("unusable")
    )


def _newest_usable_of_payees() -> Subquery:
    transaction, unusable = HuntingtonTransaction, _unusable_accounts()
    return (
        select(DisbursementRequest.payee_id, func.max(transaction.id).label("transaction_id"))
        .join(DisbursementRequest, DisbursementRequest.id == transaction.disbursement_request_id)
        .where(
            ~_is_in(
                unusable, DisbursementRequest.payee_id, transaction.routing_number, transaction.account_number_last4
            )
        )
        .group_by(DisbursementRequest.payee_id)
        .subquery("usable")
    )


def _is_in(
    unusable: Subquery,
    payee_id: SQLColumnExpression[int],
    routing_number: SQLColumnExpression[str],
    last4: SQLColumnExpression[str],
) -> ColumnElement[bool]:
    return exists().where(
        unusable.c.payee_id == payee_id,
        unusable.c.routing_number == routing_number,
        unusable.c.account_number_last4 == last4,
    )
