"""Health of the transfers: batches that wait, are held or have no live lease, and transactions with unknown outcomes.

A transaction that the bank has accepted may take days to settle; that is not a finding.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import MAX_SEPARATE_FINDINGS, remaining_finding
from seedtrust_ops.domain.sql_ranges import seconds_between, unless_far_ahead
from seedtrust_ops.domain.transfers.kill_switch import get_halt_reason
from seedtrust_ops.formatting import format_duration
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, BatchLease, FundingCheck, HuntingtonBatch, HuntingtonTransaction

BATCH_STUCK = "batch_stuck"
BATCH_HELD = "batch_held"
HELD_TOO_LONG = timedelta(days=1)
TRANSFERS_HALTED = "transfers_halted"

StuckQuery = Select[int, Any, int]
"""A batch number, its age in seconds, and the total number of rows."""


def batch_stuck(
    session: Session,
    *,
    queued_seconds: float,
    processing_seconds: float,
    transaction_seconds: float,
    halted_by_environment: bool,
) -> list[Finding]:
    """Find batches and transactions that are stuck on the way to the bank.

    Args:
        session: on the application's database.
        queued_seconds: how long a batch may be queued; unlimited while transfers are halted.
        processing_seconds: how long a batch may be processing without a live lease.
        transaction_seconds: how long a transaction may be processing.
        halted_by_environment: whether SEEDTRUST_TRANSFERS_HALTED is set.
    """
    found = []
    if get_halt_reason(session, halted_by_environment) is None:
        found += _found(
            session,
            _queued(queued_seconds),
            "batch",
            "has been queued for {} and was not sent. See the last tick of huntington_batch_sensor in the "
            "Dagster UI for the reason.",
        )
    found += _found(
        session,
        _without_lease(processing_seconds),
        "batch",
        "is processing, but no worker has held a lease on it for {}. auto_heal_huntington_batches should have requeued "
        "it: check its last runs.",
    )
    found += _found(
        session,
        _open_transactions(transaction_seconds),
        "transactions of batch",
        "have been processing for up to {}: their outcome at the bank is unknown. Check the last runs of "
        "auto_heal_huntington_batches and whether the bank is up. Do not send them again manually.",
    )
    return found


def batch_held(session: Session) -> list[Finding]:
    """Find batches that are held until a person decides, and for how long their alerts have been open."""
    rows = session.execute(
        select(HuntingtonBatch.id, Alert.opened_at < func.now() - HELD_TOO_LONG)
        .outerjoin(
            Alert,
            and_(
                Alert.rule == BATCH_HELD,
                Alert.subject == func.concat("batch ", HuntingtonBatch.id),
                Alert.resolved_at.is_(None),
            ),
        )
        .where(HuntingtonBatch.status == "held", or_(_has_transaction(is_open=True), ~_has_transaction(is_open=False)))
        .order_by(HuntingtonBatch.id)
    ).all()
    found = [
        Finding(
            BATCH_HELD,
            f"batch {batch_id}",
            Severity.HIGH if too_long else Severity.MEDIUM,
            f"Batch {batch_id} is held, so what it has not sent is not sent. If it should be, run "
            f"`seedtrust-ops transfers release {batch_id}`.",
        )
        for batch_id, too_long in rows[:MAX_SEPARATE_FINDINGS]
    ]
    if len(rows) > MAX_SEPARATE_FINDINGS:
        found.append(remaining_finding(found[0], "batch", len(rows) - MAX_SEPARATE_FINDINGS))
    return found


def transfers_halted(session: Session, *, halted_by_environment: bool) -> list[Finding]:
    """Find whether all sending of transfers is halted."""
    reason = get_halt_reason(session, halted_by_environment)
    return [] if reason is None else [Finding(TRANSFERS_HALTED, "transfers", Severity.HIGH, reason)]


def _has_transaction(*, is_open: bool) -> ColumnElement[bool]:
    is_in_state = HuntingtonTransaction.status.in_(("pending", "processing"))
    return exists().where(
        HuntingtonTransaction.batch_id == HuntingtonBatch.id, is_in_state if is_open else ~is_in_state
    )


def _queued(seconds: float) -> StuckQuery:
    # A batch that waits for funds is stuck if nobody checks it again once that is due.
    due_at = select(FundingCheck.not_before).where(FundingCheck.batch_id == HuntingtonBatch.id).scalar_subquery()
    queued_at = func.coalesce(unless_far_ahead(HuntingtonBatch.queued_at), HuntingtonBatch.created_at)
    since = func.greatest(queued_at, due_at)
    return _stuck(since, seconds).where(HuntingtonBatch.status == "queued")


def _without_lease(seconds: float) -> StuckQuery:
    since = func.greatest(
        BatchLease.expires_at, func.coalesce(unless_far_ahead(HuntingtonBatch.started_at), HuntingtonBatch.created_at)
    )
    return (
        _stuck(since, seconds)
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(
            HuntingtonBatch.status == "processing",
            # Not `leases.is_live`: a rule that shared the workers' condition would miss whatever that misses.
            or_(
                BatchLease.batch_id.is_(None),
                BatchLease.token.is_(None),
                BatchLease.expires_at <= func.clock_timestamp(),
            ),
        )
    )


def _open_transactions(seconds: float) -> StuckQuery:
    since = func.min(HuntingtonTransaction.updated_at)
    return (
        select(HuntingtonTransaction.batch_id, _age(since), func.count().over())
        .where(
            HuntingtonTransaction.status == "processing",
            HuntingtonTransaction.updated_at < func.now() - timedelta(seconds=seconds),
        )
        .group_by(HuntingtonTransaction.batch_id)
        .order_by(HuntingtonTransaction.batch_id)
    )


def _stuck(since: SQLColumnExpression[datetime], seconds: float) -> StuckQuery:
    return (
        select(HuntingtonBatch.id, _age(since), func.count().over())
        .where(since < func.now() - timedelta(seconds=seconds))
        .order_by(HuntingtonBatch.id)
    )


def _age(since: SQLColumnExpression[datetime]) -> ColumnElement[Any]:
    return seconds_between(since, func.now())


def _found(session: Session, stuck: StuckQuery, subject: str, problem: str) -> list[Finding]:
    rows = session.execute(stuck.limit(MAX_SEPARATE_FINDINGS)).tuples().all()
    found = [
        Finding(
            BATCH_STUCK,
            f"{subject} {batch_id}",
            Severity.CRITICAL,
            f"{subject.capitalize()} {batch_id} {problem.format(format_duration(float(seconds)))}",
        )
        for batch_id, seconds, _ in rows
    ]
    if rows and rows[0][2] > MAX_SEPARATE_FINDINGS:
        found.append(remaining_finding(found[0], subject, rows[0][2] - MAX_SEPARATE_FINDINGS))
    return found
