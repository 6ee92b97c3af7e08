"""Transfers that the bank reports and that cannot be read or recorded: their rows, and the alerts about them.

Such a transfer is unknown, never absent. The bank is asked about it again in `unreadable_inquiry`; what a readable one
means is in `status_transitions`.
See docs/decisions/unreadable-transfers.md.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Text, case, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.grouped_alerts import AlertGroup, sync_grouped_alerts
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.row_failures import is_row_failure
from seedtrust_ops.domain.sql_arrays import array_parameter, array_table, in_array
from seedtrust_ops.domain.transfers.attempts import idempotency_key, parse_idempotency_key
from seedtrust_ops.domain.transfers.evidence import ensure_evidence, record_doubt
from seedtrust_ops.formatting import single_line
from seedtrust_ops.ports.bank import BankTransfer, BankTransfers, UnreadableTransfer
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, TransferEvidence, UnreadableTransferRow

UNREADABLE_RULE = "bank_transfer_unreadable"
UNREADABLE_TRANSFERS = AlertGroup(
    UNREADABLE_RULE,
    "unreadable transfers",
    "unreadable bank transfer",
    "All are in ops.unreadable_transfers, with what is wrong with each. The bank is asked again about them. Ask "
    "Huntington what changed in its answers.",
)
FIRST_INQUIRY_AFTER = timedelta(minutes=1)
"""How long after it was seen the bank is asked about it again; doubled after each answer that cannot be read either."""
MAX_PROBLEM_CHARS = 1_000


def subject_of(transfer: UnreadableTransfer) -> str:
    """Return what names an unreadable transfer: the bank's id, or else its key, its reference, or what is wrong."""
    if transfer.bank_transfer_id is not None:
        return f"bank transfer {transfer.bank_transfer_id}"
    if transfer.idempotency_key is not None:
        return f"bank transfer with key {transfer.idempotency_key}"
    if transfer.reference is not None:
        return f"bank transfer with reference {transfer.reference}"
    return f"unnamed bank transfer {hashlib.sha256(transfer.problem.encode()).hexdigest()[:12]}"


def require_own_references(found: BankTransfers) -> BankTransfers:
    """Return the transfers without those that have our key and a foreign reference, which count as unreadable."""
    checked = BankTransfers(unreadable=list(found.unreadable))
    for transfer in found.readable:
        transaction_id = parse_idempotency_key(transfer.idempotency_key)
        if transaction_id is None or transfer.reference == str(transaction_id):
            checked.readable.append(transfer)
        else:
            problem = f"It has the idempotency key of transaction {transaction_id}, but another reference."
            checked.unreadable.append(
                UnreadableTransfer(transfer.id, transfer.idempotency_key, transfer.reference, problem)
            )
    return checked


def record_unreadable(session: Session, transfers: Sequence[UnreadableTransfer]) -> None:
    """Store transfers that cannot be read or recorded, put our own among them in doubt, and open their alerts.

    It comes last in a transaction, after all that locks batches, transactions or evidence.
    """
    by_subject = {subject_of(one): one for one in transfers}
    if not by_subject:
        return
    _put_in_doubt(session, by_subject.values())
    hold_lock(session, Lock.UNREADABLE_TRANSFERS)
    known = dict(
        session.execute(
            select(UnreadableTransferRow.subject, UnreadableTransferRow.problem).where(
                UnreadableTransferRow.subject == func.any(array_parameter(by_subject, Text())), is_open()
            )
        ).all()
    )
    _upsert(session, by_subject)
    if any(known.get(subject) != _problem(one) for subject, one in by_subject.items()):
        _sync_alerts(session, new_subjects=by_subject.keys() - known.keys())


def resolve_readable(session: Session, transfers: Collection[BankTransfer]) -> None:
    """Resolve the rows of transfers that could be read again; their recording is in the same database transaction."""
    row = UnreadableTransferRow
    is_read = or_(
        row.bank_transfer_id == func.any(array_parameter([one.id for one in transfers], Text())),
        row.bank_transfer_id.is_(None)
        & (row.idempotency_key == func.any(array_parameter([one.idempotency_key for one in transfers], Text()))),
        row.bank_transfer_id.is_(None)
        & row.idempotency_key.is_(None)
        & (row.reference == func.any(array_parameter([one.reference for one in transfers], Text()))),
    )
    resolve_rows(session, is_read)


def resolve_absent(session: Session, subjects: Collection[str], grace_seconds: float) -> None:
    """Resolve those of these rows that have no id of the bank and were last seen before the grace period.

    The bank has been asked by key or reference since, and has nothing that cannot be read.
    """
    row = UnreadableTransferRow
    is_named = row.subject == func.any(array_parameter(subjects, Text()))
    seen_before = func.clock_timestamp() - timedelta(seconds=grace_seconds)
    resolve_rows(session, is_named & row.bank_transfer_id.is_(None) & (row.last_seen_at <= seen_before))


def resolve_closed_by_people(session: Session) -> None:
    """Resolve the rows whose alert a person has resolved. If the bank reports one again, it is open again."""
    row = UnreadableTransferRow
    alert_is_open = exists().where(
        Alert.rule == UNREADABLE_RULE,
        Alert.resolved_at.is_(None),
        Alert.subject.in_((row.subject, UNREADABLE_TRANSFERS.subject)),
    )
    resolve_rows(session, ~alert_is_open)


def resolve_rows(session: Session, condition: ColumnElement[bool]) -> None:
    """Resolve the open rows that `condition` holds for, and their alerts."""
    if not session.scalar(select(exists().where(is_open(), condition))):
        return
    hold_lock(session, Lock.UNREADABLE_TRANSFERS)
    session.execute(update(UnreadableTransferRow).where(is_open(), condition).values(resolved_at=func.now()))
    _sync_alerts(session, new_subjects=())


def find_unreadable(session: Session, transaction_ids: Collection[int]) -> set[int]:
    """Return which transactions an open row may belong to: one with their key, reference or bank id, or without a name.

    Whatever the bank answers about their keys, it has something that may be their transfer.
    """
    row = UnreadableTransferRow
    if not session.scalar(select(exists().where(is_open()))):
        return set()
    is_nameless = row.idempotency_key.is_(None) & row.reference.is_(None)
    known_by_id = exists().where(TransferEvidence.bank_transfer_id == row.bank_transfer_id)
    if session.scalar(select(exists().where(is_open(), is_nameless, ~known_by_id))):
        return set(transaction_ids)
    by_name = {idempotency_key(one): one for one in transaction_ids} | {str(one): one for one in transaction_ids}
    names = array_parameter(by_name, Text())
    named = session.execute(
        select(row.idempotency_key, row.reference).where(
            is_open(), or_(row.idempotency_key == func.any(names), row.reference == func.any(names))
        )
    )
    found = {by_name[name] for one in named for name in one if name in by_name}
    return found | set(
        session.scalars(
            select(TransferEvidence.transaction_id)
            .join(row, row.bank_transfer_id == TransferEvidence.bank_transfer_id)
            .where(is_open(), in_array(TransferEvidence.transaction_id, transaction_ids))
        )
    )


def is_open() -> ColumnElement[bool]:
    """Return the SQL condition that a transfer cannot be read yet."""
    return UnreadableTransferRow.resolved_at.is_(None)


def _problem(transfer: UnreadableTransfer) -> str:
    return single_line(transfer.problem, MAX_PROBLEM_CHARS)


def _upsert(session: Session, by_subject: Mapping[str, UnreadableTransfer]) -> None:
    row = UnreadableTransferRow
    names = ("subject", "bank_transfer_id", "idempotency_key", "reference", "problem")
    new = array_table(
        "new",
        [(name, Text()) for name in names],
        [
            (subject, one.bank_transfer_id, one.idempotency_key, one.reference, _problem(one))
            for subject, one in sorted(by_subject.items())
        ],
    )
    next_inquiry_at = func.now() + FIRST_INQUIRY_AFTER
    statement = insert(row).from_select([*names, "next_inquiry_at"], select(*new.c, next_inquiry_at))
    is_new = row.resolved_at.is_not(None)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[row.subject],
            set_={
                # What once named it still may.
                "idempotency_key": func.coalesce(statement.excluded.idempotency_key, row.idempotency_key),
                "reference": func.coalesce(statement.excluded.reference, row.reference),
                "problem": statement.excluded.problem,
                "first_seen_at": case((is_new, func.now()), else_=row.first_seen_at),
                "last_seen_at": func.now(),
                "attempts": case((is_new, 0), else_=row.attempts),
                "next_inquiry_at": case((is_new, next_inquiry_at), else_=row.next_inquiry_at),
                "resolved_at": None,
            },
        )
    )


def _put_in_doubt(session: Session, transfers: Collection[UnreadableTransfer]) -> None:
    keys = [parse_idempotency_key(one.idempotency_key) for one in transfers if one.idempotency_key is not None]
    transaction_ids = {one for one in keys if one is not None}
    bank_transfer_ids = [one.bank_transfer_id for one in transfers if one.bank_transfer_id is not None]
    try:
        with session.begin_nested():
            ensure_evidence(session, transaction_ids)
            record_doubt(session, transaction_ids, bank_transfer_ids)
    except DBAPIError as error:
        # The row that refuses may be why one of them could not be recorded. The open alert says so.
        if not is_row_failure(error):
            raise


def _sync_alerts(session: Session, *, new_subjects: Collection[str]) -> None:
    rows = session.execute(
        select(UnreadableTransferRow.subject, UnreadableTransferRow.problem)
        .where(is_open())
        .order_by(UnreadableTransferRow.first_seen_at, UnreadableTransferRow.subject)
    )
    findings = [
        Finding(
            UNREADABLE_RULE,
            row.subject,
            Severity.HIGH,
            f"The bank reports {row.subject}, which cannot be read or recorded: {row.problem} It counts as unknown: "
            "its transaction stays as it is and is not sent again. The bank is asked about it again, and once it can "
            "be recorded this alert resolves itself. Unless our database refuses it, ask Huntington to correct it.",
        )
        for row in rows
    ]
    sync_grouped_alerts(session, UNREADABLE_TRANSFERS, findings, new_subjects=new_subjects)
