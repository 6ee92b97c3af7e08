"""Health of settlements: transfers that the bank has accepted and not settled by their deadline.

What the bank accepted and has not settled since is known by its own answers, whatever a person has written into the
transaction's status, and whether or not auto-heal would ask about it.
See docs/decisions/settlement-deadlines.md.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    SQLColumnExpression,
    case,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS, remaining_finding
from seedtrust_ops.domain.transfers.settlement_deadlines import EASTERN, latest_overdue, settles_on
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction, TransferAttempt, TransferEvidence

SETTLEMENT_OVERDUE = "settlement_overdue"
MAX_LISTED = 20
"""An alert names this many of its batch's transfers, the oldest first, and counts the rest."""
NO_BATCH = "deleted transactions"
"""The subject of the alert about transfers whose transactions somebody has deleted."""


def settlement_overdue(session: Session, *, now: datetime) -> list[Finding]:
    """Find the batches with transfers that the bank has accepted and not settled by their deadlines.

    Args:
        session: on the application's database.
        now: aware.
    """
    overdue = _overdue(now).subquery("overdue")
    batches = session.execute(
        select(overdue.c.batch_id, func.count().label("transfers"), func.count().over().label("batches"))
        .group_by(overdue.c.batch_id)
        .order_by(overdue.c.batch_id)
        .limit(MAX_SEPARATE_FINDINGS)
    ).all()
    place = func.row_number().over(partition_by=overdue.c.batch_id, order_by=(overdue.c.accepted_at, overdue.c.id))
    ranked = select(overdue, place.label("place")).where(_is_one_of(overdue.c.batch_id, batches)).subquery("ranked")
    listed = defaultdict(list)
    for row in session.execute(select(ranked).where(ranked.c.place <= MAX_LISTED).order_by(ranked.c.place)):
        listed[row.batch_id].append(row)
    found = [_finding(batch.batch_id, listed[batch.batch_id], batch.transfers) for batch in batches]
    if batches and batches[0].batches > MAX_SEPARATE_FINDINGS:
        found.append(remaining_finding(found[0], "batches", batches[0].batches - MAX_SEPARATE_FINDINGS))
    return found


def _is_one_of(batch_id: ColumnElement[Any], batches: Collection[Row[Any]]) -> ColumnElement[bool]:
    numbers = [batch.batch_id for batch in batches]
    return or_(batch_id.in_(numbers), batch_id.is_(None) if None in numbers else false())


def _overdue(now: datetime) -> CompoundSelect[*tuple[Any, ...]]:
    """Return the overdue transfers; `is_estimated` if the bank's own time of acceptance is not known."""
    transaction, evidence, batch = HuntingtonTransaction, TransferEvidence, HuntingtonBatch
    cutoffs = {method: latest_overdue(method, now) for method in ("ach", "wire")}

    def is_overdue(method: SQLColumnExpression[str], accepted_at: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        return accepted_at <= case((method == "wire", cutoffs["wire"]), else_=cutoffs["ach"])

    def columns(
        table: type[TransferEvidence] | type[HuntingtonTransaction],
        accepted_at: SQLColumnExpression[Any],
        **labels: Any,
    ) -> list[ColumnElement[Any]]:
        earliest = literal(datetime(2000, 1, 1, tzinfo=EASTERN))  # Python cannot load all that PostgreSQL can store.
        return [
            transaction.batch_id,
            table.method,
            table.amount_cents,
            func.greatest(accepted_at, earliest).label("accepted_at"),
            *(value.label(name) for name, value in labels.items()),
        ]

    # Only what a clock may have shown: people type any year into the platform.
    batch_started_at = func.coalesce(
        *(case((moment <= func.now(), moment)) for moment in (batch.started_at, batch.queued_at, batch.created_at))
    )
    first_attempt_at = (
        select(func.min(TransferAttempt.started_at))
        .where(TransferAttempt.transaction_id == evidence.transaction_id, TransferAttempt.attempt > 0)
        .scalar_subquery()
    )
    estimated_at = func.coalesce(first_attempt_at, batch_started_at, evidence.changed_at)
    known = (
        select(*columns(evidence, evidence.bank_created_at, id=evidence.transaction_id, is_estimated=false()))
        .outerjoin(transaction, transaction.id == evidence.transaction_id)
        .where(
            evidence.bank_status == "accepted",
            evidence.settled_as.is_(None),
            evidence.bank_created_at <= max(cutoffs.values()),
            is_overdue(evidence.method, evidence.bank_created_at),
        )
    )
    estimated = (
        select(*columns(evidence, estimated_at, id=evidence.transaction_id, is_estimated=true()))
        .outerjoin(transaction, transaction.id == evidence.transaction_id)
        .outerjoin(batch, batch.id == transaction.batch_id)
        .where(
            evidence.bank_status == "accepted",
            evidence.settled_as.is_(None),
            evidence.bank_created_at.is_(None),
            is_overdue(evidence.method, estimated_at),
        )
    )
    # Sent by the legacy worker, and nobody has asked the bank yet.
    legacy = (
        select(*columns(transaction, batch_started_at, id=transaction.id, is_estimated=true()))
        .join(batch, batch.id == transaction.batch_id)
        .where(
            transaction.status == "submitted",
            ~exists().where(evidence.transaction_id == transaction.id),
            is_overdue(transaction.method, batch_started_at),
        )
    )
    return union_all(known, estimated, legacy)


def _finding(batch_id: int | None, listed: list[Row[Any]], transfers: int) -> Finding:
    rest = f"; and {transfers - len(listed):,} more" if transfers > len(listed) else ""
    batch = f"of batch {batch_id}" if batch_id is not None else "whose transactions somebody has deleted"
    return Finding(
        SETTLEMENT_OVERDUE,
        f"batch {batch_id}" if batch_id is not None else NO_BATCH,
        Severity.HIGH,
        f"The bank has accepted and not settled in time {pluralize(transfers, 'transfer')} {batch}: "
        f"{'; '.join(_describe(row) for row in listed)}{rest}. Ask Huntington what holds "
        f"{'it' if transfers == 1 else 'them'} up, and do not pay the payee in another way. The alert resolves itself "
        "once the bank reports the outcome; what Huntington says otherwise is recorded with `seedtrust-ops transfers "
        "settle <transaction>`.",
    )


def _describe(row: Row[Any]) -> str:
    accepted_at = row.accepted_at.astimezone(EASTERN)
    about = "about " if row.is_estimated else ""
    return (
        f"transaction {row.id}, {'wire' if row.method == 'wire' else 'ACH'} of {format_dollars(row.amount_cents)}, "
        f"accepted {about}{accepted_at:%Y-%m-%d %H:%M} Eastern, due {settles_on(row.method, row.accepted_at)}"
    )
