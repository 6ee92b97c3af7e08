"""Health of the transfers: batches that are not sent or that no worker holds, transactions whose truth stays open.

A transaction that the bank has accepted is in the bank's hands for days, and that is no trouble.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.rule import SHOWN, in_time, the_rest
from seedtrust_ops.domain.transfers.kill_switch import why_halted
from seedtrust_ops.domain.transfers.leases import is_live
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import BatchLease, HuntingtonBatch, HuntingtonTransaction

BATCH_STUCK = "batch_stuck"
TRANSFERS_HALTED = "transfers_halted"

Stuck = Select[int, Any, int]
"""The number of a batch, since how many seconds, and how many there are."""


def batch_stuck(
    session: Session,
    *,
    queued_seconds: float,
    processing_seconds: float,
    transaction_seconds: float,
    halted_by_environment: bool,
) -> list[Finding]:
    """Find what is stuck on its way to the bank.

    Args:
        session: on the application's database.
        queued_seconds: how long a batch may be queued; while all sending is halted, any time.
        processing_seconds: how long a batch may be processing while nobody holds a live lease on it.
        transaction_seconds: how long a transaction may be processing.
        halted_by_environment: whether SEEDTRUST_TRANSFERS_HALTED is set.
    """
    found = []
    if why_halted(session, halted_by_environment) is None:
        found += _found(
            session,
            _queued(queued_seconds),
            "batch",
            "is queued for {} and was not sent. The last tick of huntington_batch_sensor in the Dagster UI says why.",
        )
    found += _found(
        session,
        _held_by_nobody(processing_seconds),
        "batch",
        "is processing and no worker has held it for {}. auto_heal_huntington_batches should have queued it again: "
        "see its last runs.",
    )
    found += _found(
        session,
        _open_transactions(transaction_seconds),
        "transactions of batch",
        "have been processing for up to {}: the bank has not said what became of them. See the last runs of "
        "auto_heal_huntington_batches and the bank's state. Don't send them again by hand.",
    )
    return found


def transfers_halted(session: Session, *, halted_by_environment: bool) -> list[Finding]:
    """Find that all sending of transfers is switched off."""
    sentence = why_halted(session, halted_by_environment)
    return [] if sentence is None else [Finding(TRANSFERS_HALTED, "transfers", Severity.HIGH, sentence)]


def _queued(seconds: float) -> Stuck:
    since = func.coalesce(HuntingtonBatch.queued_at, HuntingtonBatch.created_at)
    return _stuck(since, seconds).where(HuntingtonBatch.status == "queued")


def _held_by_nobody(seconds: float) -> Stuck:
    since = func.greatest(BatchLease.expires_at, func.coalesce(HuntingtonBatch.started_at, HuntingtonBatch.created_at))
    return (
        _stuck(since, seconds)
        .outerjoin(BatchLease, BatchLease.batch_id == HuntingtonBatch.id)
        .where(HuntingtonBatch.status == "processing", or_(BatchLease.batch_id.is_(None), ~is_live()))
    )


def _open_transactions(seconds: float) -> Stuck:
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


def _stuck(since: SQLColumnExpression[datetime], seconds: float) -> Stuck:
    return (
        select(HuntingtonBatch.id, _age(since), func.count().over())
        .where(since < func.now() - timedelta(seconds=seconds))
        .order_by(HuntingtonBatch.id)
    )


def _age(since: SQLColumnExpression[datetime]) -> ColumnElement[Any]:
    return func.extract("epoch", func.now() - since)


def _found(session: Session, stuck: Stuck, subject: str, sentence: str) -> list[Finding]:
    rows = session.execute(stuck.limit(SHOWN)).tuples().all()
    found = [
        Finding(
            BATCH_STUCK,
            f"{subject} {batch_id}",
            Severity.CRITICAL,
            f"{subject.capitalize()} {batch_id} {sentence.format(in_time(float(seconds)))}",
        )
        for batch_id, seconds, _ in rows
    ]
    if rows and rows[0][2] > SHOWN:
        found.append(the_rest(found[0], subject, rows[0][2] - SHOWN))
    return found
