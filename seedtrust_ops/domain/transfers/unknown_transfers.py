"""Transfers that the bank reports and no transaction explains: their rows, and the alerts about them.

Which transfers these are is decided in `bank_feed` and `status_transitions`; a person explains them in `explanation`.
See docs/decisions/unknown-transfers.md.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    ColumnElement,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.grouped_alerts import AlertGroup, sync_grouped_alerts
from seedtrust_ops.domain.alerts.store import Finding, resolve_all_of
from seedtrust_ops.domain.sql_arrays import array_parameter, array_table
from seedtrust_ops.formatting import format_dollars, strip_control_chars
from seedtrust_ops.ports.bank import BankStatus, BankTransfer
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonTransaction,
    TransferEvidence,
    UnknownTransfer,
)

UNKNOWN_TRANSFER_RULE = "unknown_transfer"
SECOND_TRANSFER_RULE = "second_transfer"
UNKNOWN_TRANSFERS = AlertGroup(
    UNKNOWN_TRANSFER_RULE,
    "unknown transfers",
    "transfer at the bank that no transaction explains",
    "`seedtrust-ops transfers explain` lists all. Ask Huntington who ordered them, then run it with their ids.",
)
MOVES_MONEY = frozenset({BankStatus.ACCEPTED.value, BankStatus.COMPLETED.value})
"""The bank's statuses in which the money has left the funding account and has not come back."""
_MAX_SHOWN = 100
_OUR_KEY = "^seedtrust-transaction-([0-9]{1,18})$"


@dataclass(frozen=True)
class UnexplainedTransfer:
    """A transfer at the bank that nothing explains; `problem` says why, `first_seen_at` when we read it (UTC)."""

    bank_transfer_id: str
    status: str
    method: str
    amount_cents: int
    reference: str
    problem: str
    first_seen_at: datetime
    disbursement_request_id: int | None


@dataclass(frozen=True)
class UnmatchedTransfer:
    """A transfer at the bank, and why no transaction explains it: a clause for people, such as "its reference is …"."""

    transfer: BankTransfer
    problem: str


def subject_of(bank_transfer_id: str) -> str:
    """Return the subject of the alert about one transfer."""
    return f"bank transfer {strip_control_chars(bank_transfer_id)[:_MAX_SHOWN]}"


def record_unknown(session: Session, transfers: Sequence[UnmatchedTransfer]) -> None:
    """Store these transfers, or update their rows if the bank's answer is newer, and open their alerts.

    A transfer that is explained already is unexplained again if what explained it is gone, or if it changed in a way
    that the explanation does not cover: money moved after all, another amount moved, or what is booked came back.
    """
    newest: dict[str, UnmatchedTransfer] = {}
    for one in transfers:
        known = newest.get(one.transfer.id)
        if known is None or known.transfer.updated_at <= one.transfer.updated_at:
            newest[one.transfer.id] = one
    if not newest:
        return
    rows = {row.bank_transfer_id: row for row in _lock(session, newest)}
    changed = [one for one in newest.values() if _changes(rows.get(one.transfer.id), one)]
    if not changed:
        return
    explained = {one.transfer.id for one in changed if _stays_explained(rows.get(one.transfer.id), one)}
    unexplained = {bank_id for bank_id, row in rows.items() if row.explained_at is None}
    _upsert(session, changed, explained)
    sync_alerts(session, newly_unexplained={one.transfer.id for one in changed} - explained - unexplained)


def resolve_explained(session: Session) -> list[str]:
    """Explain the transfers whose transaction has appeared, or was settled, and resolve their alerts; return their ids.

    A transaction explains a transfer if it has recorded the transfer's id, or if the transfer bears its key and it has
    no other transfer; but not if nothing can be posted for it. One that was deleted explains it only once a person has
    settled it.
    """
    unknown, transaction, evidence = UnknownTransfer, HuntingtonTransaction, TransferEvidence
    open_ones = select(unknown.bank_transfer_id).where(unknown.explained_at.is_(None))
    can_be_posted = or_(evidence.transaction_id.is_(None), is_postable())
    by_bank_id = (
        open_ones.add_columns(transaction.id)
        .join(transaction, transaction.bank_transfer_id == unknown.bank_transfer_id)
        .outerjoin(evidence, evidence.transaction_id == transaction.id)
        .where(can_be_posted)
    )
    by_settlement = (
        open_ones.add_columns(evidence.transaction_id)
        .join(evidence, evidence.transaction_id == numbered_by_key())
        .where(evidence.settled_as.is_not(None), is_of_evidence())
    )
    by_key = (
        open_ones.add_columns(transaction.id)
        .join(transaction, transaction.id == numbered_by_key())
        .outerjoin(evidence, evidence.transaction_id == transaction.id)
        .where(is_of_evidence(), can_be_posted)
    )
    explained = by_bank_id.union(by_settlement, by_key).subquery("explained")
    ids = list(
        session.scalars(
            update(unknown)
            .where(unknown.bank_transfer_id == explained.c.bank_transfer_id, unknown.explained_at.is_(None))
            .values(transaction_id=explained.c.id, explained_at=func.clock_timestamp())
            .returning(unknown.bank_transfer_id)
        )
    )
    if ids:
        sync_alerts(session)
    return ids


def numbered_by_key() -> ColumnElement[Any]:
    """Return the SQL expression of the transaction id in an unknown transfer's key, null if the key is not ours."""
    key = UnknownTransfer.idempotency_key
    return case((key.regexp_match(_OUR_KEY), cast(func.substring(key, _OUR_KEY), BigInteger)))


def is_of_evidence() -> ColumnElement[bool]:
    """Return the SQL condition that evidence, if there is any, has no other transfer than the unknown one."""
    return func.coalesce(TransferEvidence.bank_transfer_id, UnknownTransfer.bank_transfer_id) == (
        UnknownTransfer.bank_transfer_id
    )


def is_postable() -> ColumnElement[bool]:
    """Return the SQL condition that what evidence says can be posted: its request and its account exist."""
    return and_(
        exists().where(DisbursementRequest.id == TransferEvidence.disbursement_request_id),
        exists().where(Account.id == TransferEvidence.account_id),
    )


def explained_by_people(session: Session, bank_transfer_ids: Collection[str]) -> Mapping[str, int | None]:
    """Return which of these transfers a person has explained, with the transaction that it belongs to, if to any."""
    return {
        row.bank_transfer_id: row.transaction_id
        for row in session.execute(
            select(UnknownTransfer.bank_transfer_id, UnknownTransfer.transaction_id).where(
                UnknownTransfer.bank_transfer_id == func.any(array_parameter(bank_transfer_ids, Text())),
                UnknownTransfer.explained_at.is_not(None),
                UnknownTransfer.explained_by.is_not(None),
            )
        )
    }


def foreign_transfers(session: Session, transaction_id: int) -> set[str]:
    """Return the bank's transfers with a transaction's reference that a person has explained as something else."""
    return set(
        session.scalars(
            select(UnknownTransfer.bank_transfer_id).where(
                UnknownTransfer.reference == str(transaction_id),
                UnknownTransfer.explained_at.is_not(None),
                UnknownTransfer.explained_by.is_not(None),
                UnknownTransfer.transaction_id.is_distinct_from(transaction_id),
            )
        )
    )


def parse_reference(reference: str) -> int | None:
    """Return the transaction id that a reference may stand for, or None if it cannot be one."""
    if not reference.isascii() or not reference.isdigit():
        return None
    number = int(reference)
    return number if 0 < number < 2**63 else None


def resolve_second_transfer_alert(session: Session, transaction_id: int) -> None:
    """Resolve the alert about a second transfer with a transaction's reference once a person has explained all."""
    others = select(
        exists().where(UnknownTransfer.reference == str(transaction_id), UnknownTransfer.explained_at.is_(None))
    )
    if not session.scalar(others):
        resolve_all_of(session, [SECOND_TRANSFER_RULE], f"transaction {transaction_id}")


def explain_by_settlement(
    session: Session, bank_transfer_ids: Collection[str], transaction_id: int, *, by: str, reason: str
) -> None:
    """Record that these transfers are those of a transaction that a person settles."""
    settled = session.scalars(
        update(UnknownTransfer)
        .where(
            UnknownTransfer.bank_transfer_id == func.any(array_parameter(bank_transfer_ids, Text())),
            UnknownTransfer.explained_at.is_(None),
        )
        .values(
            transaction_id=transaction_id,
            explained_at=func.clock_timestamp(),
            explained_by=by,
            explanation=f"transaction {transaction_id}: {reason}",
        )
        .returning(UnknownTransfer.bank_transfer_id)
    ).all()
    if settled:
        sync_alerts(session)
        resolve_second_transfer_alert(session, transaction_id)


def sync_alerts(session: Session, *, newly_unexplained: Collection[str] = ()) -> None:
    """Make the alerts match the transfers that nothing explains now."""
    findings = [to_finding(one) for one in read_unexplained(session)]
    new_subjects = {subject_of(one) for one in newly_unexplained}
    sync_grouped_alerts(session, UNKNOWN_TRANSFERS, findings, new_subjects=new_subjects)


def read_unexplained(session: Session) -> list[UnexplainedTransfer]:
    """Return the transfers that nothing explains now, first seen first."""
    return read_transfers(session, UnknownTransfer.explained_at.is_(None))


def read_transfers(session: Session, condition: ColumnElement[bool]) -> list[UnexplainedTransfer]:
    """Return the unknown transfers with this condition, first seen first."""
    rows = session.execute(
        select(*(getattr(UnknownTransfer, one.name) for one in fields(UnexplainedTransfer)))
        .where(condition)
        .order_by(UnknownTransfer.first_seen_at, UnknownTransfer.bank_transfer_id)
    )
    return [UnexplainedTransfer(*row) for row in rows]


def to_finding(one: UnexplainedTransfer) -> Finding:
    """Return the finding about a transfer that nothing explains."""
    bank_id, reference = (strip_control_chars(text)[:_MAX_SHOWN] for text in (one.bank_transfer_id, one.reference))
    booked = (
        f" It is booked for disbursement request {one.disbursement_request_id}; explaining it again corrects that."
        if one.disbursement_request_id is not None
        else ""
    )
    return Finding(
        UNKNOWN_TRANSFER_RULE,
        subject_of(one.bank_transfer_id),
        Severity.HIGH if one.status == BankStatus.REJECTED else Severity.CRITICAL,
        f"The bank reports transfer {bank_id} ({format_dollars(one.amount_cents)}, {one.method}, {one.status}, "
        f"reference '{reference}'), and no transaction explains it: {one.problem}.{booked} Ask Huntington who ordered "
        f"it, then run `seedtrust-ops transfers explain {bank_id}`.",
    )


def _lock(session: Session, bank_transfer_ids: Collection[str]) -> Sequence[UnknownTransfer]:
    return session.scalars(
        select(UnknownTransfer)
        .where(UnknownTransfer.bank_transfer_id == func.any(array_parameter(bank_transfer_ids, Text())))
        .order_by(UnknownTransfer.bank_transfer_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()


def _changes(row: UnknownTransfer | None, one: UnmatchedTransfer) -> bool:
    transfer = one.transfer
    if row is None:
        return True
    if transfer.updated_at < row.updated_at:
        return False
    before = (row.status, row.amount_cents, row.idempotency_key, row.updated_at, row.problem)
    now = (transfer.status, transfer.amount_cents, transfer.idempotency_key, transfer.updated_at, one.problem)
    return before != now or (row.explained_at is not None and row.explained_by is None)


def _stays_explained(row: UnknownTransfer | None, one: UnmatchedTransfer) -> bool:
    if row is None or row.explained_at is None or row.explained_by is None:
        # What a transaction had explained is reported because that transaction is gone.
        return False
    moved, moves = row.status in MOVES_MONEY, one.transfer.status in MOVES_MONEY
    is_booked = row.disbursement_request_id is not None or row.transaction_id is not None
    return row.amount_cents == one.transfer.amount_cents and (moved == moves or (moved and not is_booked))


def _upsert(session: Session, transfers: Sequence[UnmatchedTransfer], explained: Collection[str]) -> None:
    new = array_table(
        "transfers",
        [
            ("bank_transfer_id", Text()),
            ("idempotency_key", Text()),
            ("reference", Text()),
            ("status", Text()),
            ("method", Text()),
            ("amount_cents", BigInteger()),
            ("created_at", TIMESTAMP(timezone=True)),
            ("updated_at", TIMESTAMP(timezone=True)),
            ("problem", Text()),
        ],
        [
            (
                one.transfer.id,
                one.transfer.idempotency_key,
                one.transfer.reference,
                one.transfer.status.value,
                one.transfer.method,
                one.transfer.amount_cents,
                one.transfer.created_at,
                one.transfer.updated_at,
                one.problem,
            )
            for one in transfers
        ],
    )
    statement = insert(UnknownTransfer).from_select(list(new.c.keys()), select(*new.c))
    changed = ("idempotency_key", "status", "amount_cents", "updated_at", "problem")
    still = UnknownTransfer.bank_transfer_id == func.any(array_parameter(explained, Text()))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[UnknownTransfer.bank_transfer_id],
            set_={
                **{name: statement.excluded[name] for name in changed},
                "explained_at": case((still, UnknownTransfer.explained_at)),
            },
        )
    )
