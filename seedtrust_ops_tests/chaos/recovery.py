"""What production does after a crash, in the order in which time brings it: leases end, healing, the sensor's re-queue.

It calls the product's own healing and processing and nothing else; whether all came right is the checker's to say.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.auto_heal import heal
from seedtrust_ops.domain.transfers.batch_lifecycle import queued_batches
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops_tests.chaos.worker_environment import Workplace

Sessions = sessionmaker[Session]

MOST_ROUNDS = 12
"""More than any crash needs, on a machine on which answers are late; what is then not at rest, the checker finds."""


def end_leases(sessions: Sessions) -> None:
    """Let the time pass that every lease has left."""
    with sessions.begin() as session:
        session.execute(
            text("update ops.batch_leases set expires_at = clock_timestamp() - interval '1 s' where token is not null")
        )


def restart(sessions: Sessions, place: Workplace) -> None:
    """Heal and process until a healing got all its answers, nothing is queued and no batch is in work."""
    for number in range(MOST_ROUNDS):
        end_leases(sessions)
        is_healed = _attempt(lambda: heal(sessions, place.open_bank, unknown_grace_seconds=0))
        with sessions() as session:
            queued = [batch.batch_id for batch in queued_batches(session)]
        for batch_id in queued:
            _attempt(partial(_process, sessions, place, batch_id, f"run {number}"))
        with sessions() as session:
            under_way = "select count(*) from huntington_batches where status in ('queued', 'processing')"
            if is_healed and not session.scalar(text(under_way)):
                break


def _process(sessions: Sessions, place: Workplace, batch_id: int, holder: str) -> None:
    process_batch(
        sessions,
        place.open_bank,
        place.cipher,
        place.rules,
        batch_id=batch_id,
        holder=holder,
        asked_at=datetime.now(UTC),
    )


def _attempt(work: Callable[[], object]) -> bool:
    """Do as a run does: where it fails, the next run goes on. Return whether it went well."""
    try:
        work()
    except SeedTrustError:
        return False
    return True
