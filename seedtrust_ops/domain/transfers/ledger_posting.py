"""Posts transfers to the escrow ledger: one disbursement per transaction, and one reversal if it was returned.

Called in the database transaction that records the status; unique indexes on the ledger enforce the 'one'.
See docs/decisions/ledger-posting.md.
"""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Protocol

from sqlalchemy import BigInteger, Select, Text, case, exists, func, select, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.sql_arrays import array_parameter, array_table, in_array
from seedtrust_ops.domain.transfers.evidence import State, is_awaiting_settlement
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.domain.transfers.unknown_transfers import MOVES_MONEY, UnmatchedTransfer, record_unknown
from seedtrust_ops.formatting import format_dollars, format_short_date
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonTransaction,
    LedgerCorrection,
    LedgerEntry,
    StatusBeforePayment,
    TransferAttempt,
    TransferEvidence,
    UnknownTransfer,
)


class TransferUpdate(Protocol):
    """A transaction and the bank's transfer that is being recorded for it."""

    @property
    def transaction_id(self) -> int: ...
    @property
    def transfer(self) -> BankTransfer: ...


def post_disbursements(session: Session, updates: Sequence[TransferUpdate]) -> None:
    """Post each transaction's disbursement, lower its account's balance, and mark its request paid.

    A transfer that was returned before we saw it completed is posted too, so that its reversal has an entry to reverse
    and the ledger is complete. Its request keeps a status that a person has set meanwhile: the reversal must not
    approve a request that was denied.
    """
    if not updates:
        return
    transfers = array_table(
        "transfers",
        [("id", BigInteger()), ("amount_cents", BigInteger()), ("bank_transfer_id", Text())],
        [(one.transaction_id, one.transfer.amount_cents, one.transfer.id) for one in updates],
    )
    # By the order that was sent: a transaction that was assigned to another request since then paid the first one.
    request_of_transfer = (
        select(
            transfers.c.id,
            transfers.c.amount_cents,
            transfers.c.bank_transfer_id,
            TransferEvidence.method,
            DisbursementRequest.id.label("request_id"),
            DisbursementRequest.status.label("request_status"),
        )
        .join(TransferEvidence, TransferEvidence.transaction_id == transfers.c.id)
        .join(DisbursementRequest, DisbursementRequest.id == TransferEvidence.disbursement_request_id)
        .join(Account, Account.id == TransferEvidence.account_id)
    )
    rows = session.execute(request_of_transfer).all()
    posted = _post(
        session,
        "disbursement",
        [(row.id, -row.amount_cents, f"Huntington {row.method} {row.bank_transfer_id}") for row in rows],
    )
    request_of = {row.id: row.request_id for row in rows}
    returned = {one.transaction_id for one in updates if one.transfer.status is BankStatus.RETURNED}
    set_by_people = {row.id for row in rows if row.id in returned and row.request_status not in ("approved", "paid")}
    paying = posted - set_by_people
    marked = mark_paid(session, {request_of[transaction_id] for transaction_id in paying})
    for one in updates:
        request_id = request_of.get(one.transaction_id)
        if one.transaction_id in paying and request_id not in marked:
            _open_paid_twice_alert(session, request_id, one)
    record_unknown(
        session,
        [
            UnmatchedTransfer(
                one.transfer,
                f"transaction {one.transaction_id} has no disbursement request whose case has an account, so "
                "nothing is posted for it (`--request` with the request that it paid books it)",
            )
            for one in updates
            if one.transaction_id not in request_of
        ],
    )


def _open_paid_twice_alert(session: Session, request_id: int | None, one: TransferUpdate) -> None:
    open_alert(
        session,
        "request_paid_twice",
        f"request {request_id}",
        "CRITICAL",
        f"Disbursement request {request_id} was already paid when transaction {one.transaction_id} moved another "
        f"{format_dollars(one.transfer.amount_cents)} (bank transfer {one.transfer.id}). Both payments are posted: ask "
        "the payee or Huntington to return one of them.",
    )


def correct_entries(session: Session, one: TransferUpdate, memo: str) -> int:
    """Post what is missing until a transaction's entries add up to what its transfer moved; return the cents.

    The other two functions post one entry of each kind per transaction. This one adds an entry without a transaction
    id, linked in `ops.ledger_corrections`, when a person or a newer answer of the bank changes what was booked, and it
    marks the request paid if the correction pays it.
    """
    wanted = -one.transfer.amount_cents if one.transfer.status is BankStatus.COMPLETED else 0
    cents = wanted - booked_cents(session, [one.transaction_id])[one.transaction_id]
    if cents:
        session.execute(select(func.ops.post_ledger_correction(one.transaction_id, cents, memo, type_=BigInteger())))
    if wanted:
        request_id = session.scalar(
            select(TransferEvidence.disbursement_request_id).where(
                TransferEvidence.transaction_id == one.transaction_id
            )
        )
        if request_id is not None and not mark_paid(session, {request_id}) and cents:
            _open_paid_twice_alert(session, request_id, one)
    return cents


def settled_transactions(session: Session, transaction_ids: Collection[int]) -> set[int]:
    """Return which of these transactions a person has ever settled: what is booked may not be what the bank says."""
    settled = select(TransferAttempt.transaction_id).where(
        in_array(TransferAttempt.transaction_id, transaction_ids), TransferAttempt.outcome == "settled"
    )
    return set(session.scalars(settled)) | corrected_transactions(session, transaction_ids)


def corrected_transactions(session: Session, transaction_ids: Collection[int]) -> set[int]:
    """Return which of these transactions have entries that were corrected."""
    return set(
        session.scalars(
            select(LedgerCorrection.transaction_id).where(in_array(LedgerCorrection.transaction_id, transaction_ids))
        )
    )


def booked_cents(session: Session, transaction_ids: Collection[int]) -> dict[int, int]:
    """Return the sum of each transaction's entries and of those that correct them, in cents; 0 if it has none."""
    entry, correction = LedgerEntry, LedgerCorrection
    entries = union_all(
        select(entry.huntington_transaction_id.label("transaction_id"), entry.amount_cents).where(
            in_array(entry.huntington_transaction_id, transaction_ids)
        ),
        select(correction.transaction_id, entry.amount_cents)
        .join(entry, entry.id == correction.ledger_entry_id)
        .where(in_array(correction.transaction_id, transaction_ids)),
    ).subquery("entries")
    query = select(entries.c.transaction_id, func.sum(entries.c.amount_cents)).group_by(entries.c.transaction_id)
    return dict.fromkeys(transaction_ids, 0) | {one: int(cents) for one, cents in session.execute(query).tuples()}


def mark_paid(session: Session, request_ids: set[int]) -> dict[int, str]:
    """Mark the requests paid; return the previous status of each one that was not paid already.

    That status is kept, because a return restores it: a request that was denied while its payment was in flight must
    not become approved, and payable again.
    """
    unpaid = {
        row.id: row.status
        for row in session.execute(
            select(DisbursementRequest.id, DisbursementRequest.status)
            .where(in_array(DisbursementRequest.id, request_ids), DisbursementRequest.status != "paid")
            .order_by(DisbursementRequest.id)
            .with_for_update()
        )
    }
    if not unpaid:
        return {}
    before = array_table("before", [("id", BigInteger()), ("status", Text())], unpaid.items())
    statement = insert(StatusBeforePayment).from_select(
        ["disbursement_request_id", "status"], select(before.c.id, before.c.status)
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[StatusBeforePayment.disbursement_request_id],
            set_={"status": statement.excluded.status, "recorded_at": func.now()},
        )
    )
    session.execute(
        update(DisbursementRequest)
        .where(in_array(DisbursementRequest.id, unpaid))
        .values(status="paid", paid_at=func.now())
    )
    for request_id, status in unpaid.items():
        if status != "approved":
            open_paid_without_approval_alert(session, request_id, status, "was paid")
    return unpaid


def open_paid_without_approval_alert(session: Session, request_id: int, status: str, what: str) -> None:
    """Open the alert that a request which nobody approves any more was paid or is being paid."""
    open_alert(
        session,
        "paid_without_approval",
        f"request {request_id}",
        "CRITICAL",
        f"Disbursement request {request_id} {what} although it is '{status}': it was changed after its payment had "
        "been sent, and the bank cannot take a sent payment back. Decide whether to ask the payee or Huntington to "
        "return it.",
    )


def alert_unapproved_in_flight(session: Session) -> None:
    """Open an alert for each request that a person denied or canceled while its payment is in flight."""
    accepted_at = func.max(case((is_awaiting_settlement(), TransferEvidence.bank_created_at)))
    rows = session.execute(
        select(DisbursementRequest.id, DisbursementRequest.status, TransferEvidence.method, accepted_at)
        .join(TransferEvidence, TransferEvidence.disbursement_request_id == DisbursementRequest.id)
        .where(
            TransferEvidence.state == State.IN_FLIGHT.value,
            TransferEvidence.unknown_to_bank_at.is_(None),
            DisbursementRequest.status.in_(("denied", "cancelled")),
        )
        .group_by(DisbursementRequest.id, DisbursementRequest.status, TransferEvidence.method)
        .order_by(DisbursementRequest.id, TransferEvidence.method)
    ).tuples()
    for (request_id, status), payments in groupby(rows, key=lambda row: row[:2]):
        days = [settles_on(method, at) for _, _, method, at in payments if at is not None]
        by = f" (by {format_short_date(max(days))})" if days else ""
        open_paid_without_approval_alert(session, request_id, status, f"is being paid{by}")


def post_reversals(session: Session, updates: Sequence[TransferUpdate]) -> None:
    """Post each returned transaction's reversal, raise the balance, and reopen its request."""
    if not updates:
        return
    ids = [one.transaction_id for one in updates]
    disbursements = session.execute(
        select(LedgerEntry.huntington_transaction_id, LedgerEntry.amount_cents).where(
            in_array(LedgerEntry.huntington_transaction_id, ids), LedgerEntry.kind == "disbursement"
        )
    ).all()
    # What a correction has given back already is not given back again.
    booked = booked_cents(session, corrected_transactions(session, ids))
    given_back = {one for one, cents in booked.items() if cents == 0}
    codes = {one.transaction_id: one.transfer.return_code or "no code" for one in updates}
    _post(
        session,
        "reversal",
        [
            (
                row.huntington_transaction_id,
                -row.amount_cents,
                f"Returned by the bank ({codes[row.huntington_transaction_id]})",
            )
            for row in disbursements
            if row.huntington_transaction_id not in given_back
        ],
    )
    restore_requests(session, ids)


def restore_requests(session: Session, transaction_ids: Collection[int]) -> None:
    """Give the paid requests of these transactions their status before that, unless another transfer paid them."""
    restore_paid_requests(
        session,
        select(TransferEvidence.disbursement_request_id).where(
            in_array(TransferEvidence.transaction_id, transaction_ids)
        ),
    )


def restore_paid_requests(session: Session, request_ids: Collection[int] | Select[int | None]) -> None:
    """Give these requests, if they are paid, their status before that, unless another transfer paid them."""
    before = (
        select(StatusBeforePayment.status)
        .where(StatusBeforePayment.disbursement_request_id == DisbursementRequest.id)
        .scalar_subquery()
    )
    session.execute(
        update(DisbursementRequest)
        .where(
            DisbursementRequest.id.in_(request_ids),
            DisbursementRequest.status == "paid",
            # An operator may read some columns only, and `exists (select *)` reads them all.
            ~exists(HuntingtonTransaction.id).where(
                HuntingtonTransaction.disbursement_request_id == DisbursementRequest.id,
                HuntingtonTransaction.status == "completed",
            ),
            ~exists(TransferEvidence.transaction_id).where(
                TransferEvidence.disbursement_request_id == DisbursementRequest.id,
                TransferEvidence.state == State.MOVED,
            ),
            ~exists().where(
                UnknownTransfer.disbursement_request_id == DisbursementRequest.id,
                UnknownTransfer.status.in_(MOVES_MONEY),
            ),
        )
        # Requests that the legacy worker marked paid had been approved.
        .values(status=func.coalesce(before, "approved"), paid_at=None)
    )


def _post(session: Session, kind: str, entries: Sequence[tuple[int, int, str]]) -> set[int]:
    """Post the entries (transaction, cents, memo) that are not posted yet, and adjust the balances.

    A function of the database does both, because its role for the jobs may move no balance in any other way
    (docs/decisions/database-guards.md).

    Returns:
        The transactions whose entries are new.
    """
    if not entries:
        return set()
    transaction_ids, amounts_cents, memos = zip(*entries, strict=True)
    posted = func.ops.post_ledger_entries(
        kind,
        array_parameter(transaction_ids, BigInteger()),
        array_parameter(amounts_cents, BigInteger()),
        array_parameter(memos, Text()),
        type_=BigInteger(),
    )
    return set(session.scalars(select(posted)))
