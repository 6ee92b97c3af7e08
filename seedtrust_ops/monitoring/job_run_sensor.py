"""Mirrors every Dagster run into JobRun, whoever launched it, by paging run records in the order of their changes.

Not Dagster's run-status sensors: they read a few events a tick and fall behind in silence (dagster issues
19224 and 14779). The cursor is a time; each tick starts a little before it and looks again at every run whose
end was not seen, and recording a run twice changes nothing.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.job_failures import RunFailure, record_failures
from seedtrust_ops.domain.job_runs import RunFact, mirror_runs, unfinished_runs
from seedtrust_ops.monitoring.changed_runs import changed_runs
from seedtrust_ops.monitoring.job_run_mapper import fact_of, failure_to_record, status_of
from seedtrust_ops.monitoring.queue_expiry import cancel_expired_runs
from seedtrust_ops.monitoring.run_events import read_events
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import owners_and_tags
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures

OVERLAP = timedelta(seconds=30)
"""A run's update time is when the event happened; it may be stored a little later, behind a newer one's."""
SECONDS_A_TICK = 20.0
"""After so long a tick leaves the rest to the next one, which goes on where it stopped: Dagster ends one that takes
60 seconds, and all that it did would be done again."""
UNFINISHED_RUNS = 500


@dg.sensor(
    name="job_run_sensor",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps JobRun, which every dashboard of the company reads, equal to Dagster's runs, and cancels those "
    "that wait in the queue for longer than their job allows.",
    **owners_and_tags("job_run_sensor"),
)
def job_run_sensor(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Mirror all that changed since the last tick, and cancel the runs that waited too long."""
    with user_facing_failures():
        changed, cursor = mirror_changed_runs(context.instance, database, _read_cursor(context.cursor))
    if cursor is not None:
        context.update_cursor(cursor.isoformat())
    expired = cancel_expired_runs(context.instance)
    said = f"{changed} rows of JobRun are new or changed; this sensor never launches a run."
    return dg.SkipReason(f"{said} {expired} runs waited too long and were cancelled." if expired else said)


def mirror_changed_runs(
    instance: dg.DagsterInstance, database: DatabaseResource, cursor: datetime | None
) -> tuple[int, datetime | None]:
    """Mirror the runs that changed since `cursor` (UTC; None: all), oldest change first, in bounded pages.

    Returns:
        How many rows are new or changed, and the update time up to which all is mirrored.
    """
    sessions = database.sessions()
    changed = 0
    deadline = time.monotonic() + SECONDS_A_TICK
    for page in changed_runs(instance, cursor - OVERLAP if cursor is not None else None):
        changed += _mirror(instance, sessions, page)
        newest = page[-1].update_timestamp
        cursor = max(cursor, newest) if cursor is not None else newest
        if time.monotonic() > deadline:
            break
    return changed + _mirror_unfinished(instance, sessions), cursor


def _mirror_unfinished(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> int:
    """Look again at the runs whose end JobRun has not seen.

    An event bears the clock of the machine where it happened: one whose clock is behind, or that stored the
    event late, leaves a run that changed before the cursor. And an op that is tried again changes no run.
    """
    with sessions() as session:
        run_ids = unfinished_runs(session, limit=UNFINISHED_RUNS)
    if not run_ids:
        return 0
    return _mirror(instance, sessions, instance.get_run_records(dg.RunsFilter(run_ids=run_ids)))


def _mirror(instance: dg.DagsterInstance, sessions: sessionmaker[Session], records: Sequence[dg.RunRecord]) -> int:
    """Mirror these runs with what their events say, in one transaction; return how many rows are new or changed."""
    begun = {record.dagster_run.run_id: record for record in records if status_of(record.dagster_run) != "PENDING"}
    failed = [record for record in records if record.dagster_run.status is dg.DagsterRunStatus.FAILURE]
    events = read_events(instance, list(begun), failed=[record.dagster_run.run_id for record in failed])
    facts = [fact_of(record, events.get(record.dagster_run.run_id)) for record in records]
    failures = [failure_to_record(record, events[record.dagster_run.run_id]) for record in failed]
    return run_in_transaction(sessions, partial(_record, facts=facts, failures=failures))


def _record(session: Session, facts: Sequence[RunFact], failures: Sequence[RunFailure]) -> int:
    changed = mirror_runs(session, facts)
    record_failures(session, failures)
    return changed


def _read_cursor(text: str | None) -> datetime | None:
    """Return the cursor's time; one that can't be read (people may edit it) means to mirror all runs again."""
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
