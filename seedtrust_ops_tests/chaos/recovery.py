"""What production does after a crash, in order: leases expire, auto-heal runs, and the sensor's runs process the queue.

It calls the product's own auto-heal, batch processing and health rules and nothing else; the checks are in
`invariants`.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.health.batches import BATCH_HELD, batch_held
from seedtrust_ops.domain.health.evaluator import evaluate
from seedtrust_ops.domain.health.funding import INSUFFICIENT_FUNDING, insufficient_funding
from seedtrust_ops.domain.health.ledger import LEDGER_MISMATCH, ledger_mismatch
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.domain.health.settlement import SETTLEMENT_OVERDUE, settlement_overdue
from seedtrust_ops.domain.transfers.auto_heal import HealReport, heal
from seedtrust_ops.domain.transfers.batch_lifecycle import list_queued_batches
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops_tests.chaos.worker_config import ALERT_EMAILS, WorkerConfig

Sessions = sessionmaker[Session]

MAX_ROUNDS = 12
"""More than any crash needs, even if responses are late; what is still open afterwards is a violation."""


class RowsLocked(SeedTrustError):
    """Auto-heal could not record some transfers this time."""


def evaluate_health(sessions: Sessions) -> None:
    """Evaluate the health rules that tell people of transfers, as `job_health_sensor` does every minute."""
    with sessions() as session:
        now: datetime = session.execute(text("select clock_timestamp()")).scalar_one()
    rules = (
        HealthRule(BATCH_HELD, batch_held),
        HealthRule(INSUFFICIENT_FUNDING, insufficient_funding),
        HealthRule(SETTLEMENT_OVERDUE, partial(settlement_overdue, now=now)),
        HealthRule(LEDGER_MISMATCH, ledger_mismatch),
    )
    evaluation = evaluate(sessions, rules, now=now, last_evaluated={}, quiet_seconds=0, max_seconds=600)
    assert not evaluation.failures, evaluation.failures


def expire_leases(sessions: Sessions) -> None:
    """Let every lease expire, as if its time had passed."""
    with sessions.begin() as session:
        session.execute(
            text("update ops.batch_leases set expires_at = clock_timestamp() - interval '1 s' where token is not null")
        )


def end_inquiry_pauses(sessions: Sessions) -> None:
    """Let auto-heal ask about everything now, as if the pauses between its inquiries had passed."""
    with sessions.begin() as session:
        for table in ("legacy_inquiries", "unreadable_transfers"):
            session.execute(text(f"update ops.{table} set next_inquiry_at = clock_timestamp() - interval '1 s'"))


def auto_heal(sessions: Sessions, config: WorkerConfig) -> HealReport:
    """Run auto-heal on everything that is open."""
    return heal(
        sessions,
        config.open_bank,
        unknown_grace_seconds=0,
        was_canceled_by_person=lambda _run_id: False,
        alert_emails=ALERT_EMAILS,
    )


def require_all_recorded(report: HealReport) -> None:
    """Raise `RowsLocked` if rows were locked for so long, as on a stalled machine, that the next run must go on."""
    locked = sorted(one for one, failure in report.unrecorded.items() if failure.may_pass)
    if locked:
        raise RowsLocked(f"The rows of transactions {locked} were locked.")


def recover(sessions: Sessions, config: WorkerConfig) -> None:
    """Heal and process until auto-heal got all its responses and no batch is queued or processing."""
    for number in range(MAX_ROUNDS):
        expire_leases(sessions)
        end_inquiry_pauses(sessions)
        is_healed = _succeeds(lambda: require_all_recorded(auto_heal(sessions, config)))
        with sessions() as session:
            queued = [batch.batch_id for batch in list_queued_batches(session)]
        for batch_id in queued:
            _succeeds(partial(_process, sessions, config, batch_id, f"run {number}"))
        with sessions() as session:
            unfinished = "select count(*) from huntington_batches where status in ('queued', 'processing')"
            if is_healed and not session.scalar(text(unfinished)):
                break


def _process(sessions: Sessions, config: WorkerConfig, batch_id: int, holder: str) -> None:
    process_batch(sessions, config.open_bank, config.batch_run(batch_id, holder))


def _succeeds(work: Callable[[], object]) -> bool:
    """Do the work as a run does: if it fails, the next run continues. Return whether it succeeded.

    On a machine that stands still for ten seconds, the database server closes connections that are in a transaction;
    any other error of the database is raised.
    """
    try:
        work()
    except SeedTrustError:
        return False
    except OperationalError as error:
        if not error.connection_invalidated:
            raise
        return False
    return True
