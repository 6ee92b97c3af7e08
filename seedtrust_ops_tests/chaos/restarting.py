"""What production does after a crash, in the order in which time brings it: leases end, healing, the sensor's re-queue.

It calls the product's own healing and processing and nothing else; whether all came right is the checker's to say.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.transfers.batches import queued_batches
from seedtrust_ops.domain.transfers.healing import heal
from seedtrust_ops.domain.transfers.processing import process_batch
from seedtrust_ops.errors import OperationsError
from seedtrust_ops.resources.postgres import create_application_engine
from seedtrust_ops_tests.chaos.workplaces import Workplace

Sessions = sessionmaker[Session]

MOST_ROUNDS = 6
"""More than any crash needs; what is then not at rest, the checker finds."""


@contextmanager
def sessions_of(place: Workplace) -> Iterator[Sessions]:
    """Sessions on the workplace's database, through the product's own engine."""
    engine = create_application_engine(place.database)
    try:
        yield sessionmaker(engine, expire_on_commit=False)
    finally:
        engine.dispose()


def end_leases(sessions: Sessions) -> None:
    """Let the time pass that every lease has left."""
    with sessions.begin() as session:
        session.execute(
            text("update ops.batch_leases set expires_at = clock_timestamp() - interval '1 s' where token is not null")
        )


def restart(sessions: Sessions, place: Workplace) -> list[str]:
    """Heal and process until nothing is queued and no batch is in work; return the troubles that runs ended in."""
    troubles = []
    for number in range(MOST_ROUNDS):
        end_leases(sessions)
        troubles += _attempted(lambda: heal(sessions, place.open_bank, unknown_grace_seconds=0))
        with sessions() as session:
            queued = [batch.batch_id for batch in queued_batches(session)]
            at_work = session.scalar(text("select count(*) from huntington_batches where status = 'processing'"))
        if not queued and not at_work:
            break
        for batch_id in queued:
            troubles += _attempted(
                lambda batch_id=batch_id, name=f"run {number}": _process(sessions, place, batch_id, name)
            )
    return troubles


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


def _attempted(work: Callable[[], object]) -> list[str]:
    """Do as a run does that fails: its failure is told, and the next run goes on."""
    try:
        work()
    except OperationsError as error:
        return [str(error)]
    return []
