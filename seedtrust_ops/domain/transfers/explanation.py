"""Explains a transfer that no transaction explains, by a person's decision; books it if it paid a request.

The bank is asked first. A transfer that belongs to a transaction is for `settlement`, not for this.
See docs/decisions/unknown-transfers.md.
"""

from dataclasses import dataclass

from sqlalchemy import BigInteger, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.transfers.attempts import parse_idempotency_key
from seedtrust_ops.domain.transfers.evidence import State, is_in_flight
from seedtrust_ops.domain.transfers.ledger_posting import mark_paid, restore_paid_requests
from seedtrust_ops.domain.transfers.unknown_transfers import (
    MOVES_MONEY,
    is_postable,
    parse_reference,
    resolve_second_transfer_alert,
    sync_alerts,
)
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import format_dollars, strip_control_chars
from seedtrust_ops.ports.bank import BankStatus, BankTransfer, OpenBank, UnreadableTransfer
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerCorrection,
    TransferEvidence,
    UnknownTransfer,
)


class ExplanationRefused(SeedTrustError):
    """The transfer may not be explained as asked; the message says why."""


@dataclass(frozen=True)
class Explanation:
    """A person's decision about a transfer at the bank; `request_id` is the request that it paid, if any."""

    bank_transfer_id: str
    reason: str
    by: str
    request_id: int | None = None


@dataclass(frozen=True)
class ExplanationReport:
    """What explaining changed; `posted_cents` is what it moved on the account, negative if it was lowered."""

    bank_transfer_id: str
    status: str
    amount_cents: int
    request_id: int | None
    posted_cents: int


def ask_bank(open_bank: OpenBank, bank_transfer_id: str) -> BankTransfer | None:
    """Return the bank's transfer by its id, or None if the bank does not know it.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
        ExplanationRefused: if the transfer cannot be read.
    """

    async def ask() -> BankTransfer | UnreadableTransfer | None:
        async with open_bank() as bank:
            return await bank.get_transfer(bank_transfer_id)

    answer = run_in_loop(ask)
    if isinstance(answer, UnreadableTransfer):
        raise ExplanationRefused(
            f"The bank's transfer {bank_transfer_id} cannot be read ({answer.problem}). Nothing was changed. Ask "
            "Huntington to correct it."
        )
    return answer


def explain(session: Session, decision: Explanation, answer: BankTransfer | None) -> ExplanationReport:
    """Explain a transfer: nobody is notified of it any more, and with a request it is booked as its payment.

    A transfer that is booked and came back is booked back when it is explained again.

    Args:
        session: in a transaction of its own, which the audit attributes to the person.
        decision: what is to be recorded, and why.
        answer: what the bank says now, from `ask_bank`.

    Raises:
        ExplanationRefused: nothing was changed.
    """
    row = _lock(session, decision.bank_transfer_id)
    status, updated_at = BankStatus(row.status), row.updated_at
    if answer is not None and answer.updated_at >= row.updated_at:
        _require_recorded_amount(row, answer)
        status, updated_at = answer.status, answer.updated_at
    request_id = _choose_request(decision, row)
    account_id = None
    if request_id is not None:
        _require_bookable(session, decision, row, status, answer)
        account_id = _find_account(session, request_id, None if _is_booked(session, row) else row.amount_cents)
    # First: to an operator, the database allows the other changes only together with this one.
    session.execute(
        update(UnknownTransfer)
        .where(UnknownTransfer.bank_transfer_id == row.bank_transfer_id)
        .values(
            status=status.value,
            updated_at=updated_at,
            explained_at=func.clock_timestamp(),
            explained_by=decision.by,
            explanation=decision.reason,
            disbursement_request_id=request_id,
            account_id=account_id,
        )
    )
    posted_cents = 0
    if request_id is not None:
        posted_cents = _book(session, decision, request_id, status)
    if (transaction_id := parse_reference(row.reference)) is not None:
        resolve_second_transfer_alert(session, transaction_id)
    sync_alerts(session)
    return ExplanationReport(row.bank_transfer_id, status.value, row.amount_cents, request_id, posted_cents)


def summarize(report: ExplanationReport) -> str:
    """Return what explaining changed, in sentences for the person who did it."""
    bank_id = strip_control_chars(report.bank_transfer_id)
    sentences = [f"Bank transfer {bank_id} ({format_dollars(report.amount_cents)}, {report.status}) is explained."]
    if report.request_id is not None and report.status in MOVES_MONEY:
        sentences.append(f"It is booked as the payment of disbursement request {report.request_id}.")
    elif report.request_id is not None:
        sentences.append(f"What was booked for disbursement request {report.request_id} adds up to nothing.")
    return " ".join(sentences)


def _lock(session: Session, bank_transfer_id: str) -> UnknownTransfer:
    row = session.scalars(
        select(UnknownTransfer).where(UnknownTransfer.bank_transfer_id == bank_transfer_id).with_for_update()
    ).one_or_none()
    transaction_id = row.transaction_id if row is not None and row.explained_at is not None else None
    if row is None:
        transaction_id = session.scalar(
            select(HuntingtonTransaction.id).where(HuntingtonTransaction.bank_transfer_id == bank_transfer_id)
        )
    if transaction_id is not None:
        raise ExplanationRefused(
            f"Bank transfer {bank_transfer_id} is that of transaction {transaction_id}, so there is nothing to "
            "explain. Nothing was changed. If the transaction's status is wrong, run `seedtrust-ops transfers settle "
            f"{transaction_id}`."
        )
    if row is None:
        raise ExplanationRefused(
            f"SeedTrust has read no bank transfer {bank_transfer_id} that lacks an explanation. Nothing was changed. "
            "Check the id; what the bank reported just now is read within a minute."
        )
    return row


def _require_recorded_amount(row: UnknownTransfer, answer: BankTransfer) -> None:
    """Refuse an amount that only this person's process has seen: what is booked is what auto-heal has recorded."""
    if answer.amount_cents != row.amount_cents:
        raise ExplanationRefused(
            f"Bank transfer {row.bank_transfer_id} was for {format_dollars(row.amount_cents)}, and the bank now says "
            f"{format_dollars(answer.amount_cents)}. Nothing was changed. Auto-heal records that within a minute; then "
            "try again."
        )


def _choose_request(decision: Explanation, row: UnknownTransfer) -> int | None:
    booked_for = row.disbursement_request_id
    if booked_for is not None and decision.request_id not in (None, booked_for):
        raise ExplanationRefused(
            f"Bank transfer {row.bank_transfer_id} is booked for disbursement request {booked_for} already. Nothing "
            "was changed."
        )
    return booked_for if decision.request_id is None else decision.request_id


def _require_bookable(
    session: Session, decision: Explanation, row: UnknownTransfer, status: BankStatus, answer: BankTransfer | None
) -> None:
    if answer is None:
        raise ExplanationRefused(
            f"The bank does not find transfer {row.bank_transfer_id} now, so it is not booked. Nothing was changed. "
            "Try again, or explain it without --request."
        )
    if status is BankStatus.REJECTED and row.disbursement_request_id is None:
        raise ExplanationRefused(
            f"The bank rejected transfer {row.bank_transfer_id}: no money moved, so it paid no request. Nothing was "
            "changed. Explain it without --request."
        )
    transaction_id = parse_idempotency_key(row.idempotency_key)
    is_first = func.coalesce(TransferEvidence.bank_transfer_id, row.bank_transfer_id) == row.bank_transfer_id
    if transaction_id is not None and session.scalar(
        select(exists().where(TransferEvidence.transaction_id == transaction_id, is_postable(), is_first))
    ):
        raise ExplanationRefused(
            f"Bank transfer {row.bank_transfer_id} is that of transaction {transaction_id}, which somebody deleted. "
            "Nothing was changed. To book it for the request that it was sent for, run `seedtrust-ops transfers settle "
            f"{transaction_id}`."
        )


def _is_booked(session: Session, row: UnknownTransfer) -> bool:
    return bool(session.scalar(select(exists().where(LedgerCorrection.bank_transfer_id == row.bank_transfer_id))))


def _find_account(session: Session, request_id: int, cents: int | None) -> int:
    """Return the account of a request's case; `cents` is what the request must be for, if it is not booked yet."""
    request = session.execute(
        select(DisbursementRequest.amount_cents, Account.id.label("account_id"))
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .where(DisbursementRequest.id == request_id)
    ).one_or_none()
    if request is None or request.account_id is None:
        what = "does not exist" if request is None else "belongs to a case without an account"
        raise ExplanationRefused(f"Disbursement request {request_id} {what}. Nothing was changed. Check the number.")
    if cents is not None and request.amount_cents != cents:
        raise ExplanationRefused(
            f"Disbursement request {request_id} is for {format_dollars(request.amount_cents)}, but the transfer is for "
            f"{format_dollars(cents)}: a transfer of another amount pays no request. Nothing was changed. Check the "
            "number, or explain the transfer without --request."
        )
    account_id: int = request.account_id
    return account_id


def _book(session: Session, decision: Explanation, request_id: int, status: BankStatus) -> int:
    """Post what the transfer moved, and mark its request paid or payable; return the cents that were posted.

    Posting locks the account, as the check of a batch does: after that, no worker can begin to pay the request.
    """
    was_booked = session.scalar(select(exists().where(LedgerCorrection.bank_transfer_id == decision.bank_transfer_id)))
    memo = f"Bank transfer {decision.bank_transfer_id} explained by {decision.by}: {decision.reason}"
    posted_cents = session.scalars(
        select(func.ops.post_explained_transfer(decision.bank_transfer_id, memo, type_=BigInteger()))
    ).one()
    if not was_booked:
        _require_unpaid(session, request_id)
    if status in MOVES_MONEY:
        if not mark_paid(session, {request_id}) and posted_cents:
            raise ExplanationRefused(
                f"Disbursement request {request_id} is paid already. Nothing was changed. Explain the transfer without "
                "--request, and ask the payee or Huntington to return it."
            )
    else:
        restore_paid_requests(session, {request_id})
    return posted_cents


def _require_unpaid(session: Session, request_id: int) -> None:
    """Refuse to book a second payment of a request: one that moved money, may still, or is about to be sent."""
    transaction, evidence = HuntingtonTransaction, TransferEvidence
    by_evidence = (
        select(evidence.transaction_id)
        .outerjoin(transaction, transaction.id == evidence.transaction_id)
        .where(evidence.disbursement_request_id == request_id, or_(evidence.state == State.MOVED, is_in_flight()))
    )
    is_being_sent = and_(
        transaction.status.in_(("pending", "processing")),
        exists().where(HuntingtonBatch.id == transaction.batch_id, HuntingtonBatch.status == "processing"),
    )
    by_status = select(transaction.id).where(
        transaction.disbursement_request_id == request_id,
        or_(transaction.status.in_(("processing", "submitted", "completed")), is_being_sent),
    )
    other = session.scalar(by_evidence.union(by_status).limit(1))
    if other is not None:
        raise ExplanationRefused(
            f"Transaction {other} has paid disbursement request {request_id} or may still pay it. Nothing was changed. "
            "Wait until it is final, or explain the transfer without --request."
        )
