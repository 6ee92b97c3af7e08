"""Mirrors every Dagster run into JobRun by paging run records in order of their last change.

It does not use Dagster's run-status sensors: they read a few events per tick and silently fall behind (dagster issues
19224 and 14779). The cursor is a time; each tick starts a little before it and rereads every unfinished run. Mirroring
a run twice changes nothing.
See docs/decisions/job-run-mirror.md.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.job_failures import RunFailure, record_failures
from seedtrust_ops.domain.job_runs import RunSnapshot, mirror_runs, unfinished_runs
from seedtrust_ops.monitoring.job_run_mapper import failure_to_record, status_of, to_run_snapshot
from seedtrust_ops.monitoring.run_events import read_events
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import owners_and_tags
from seedtrust_ops.orchestration.queue_expiration import cancel_expired_runs
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures

OVERLAP = timedelta(seconds=30)
"""A run's update time is when its event happened; the event may be stored a little later, after a newer one."""
MAX_TICK_SECONDS = 20.0
"""After this time a tick leaves the rest to the next one, which continues where it stopped. Dagster terminates a tick
after 60 seconds, and all its work would be repeated."""
UNFINISHED_RUNS = 500
RECORDS_PER_PAGE = 500
TIMESTAMP_RESOLUTION = timedelta(microseconds=1)
"""The resolution of Dagster's update times."""


@dg.sensor(
    name="job_run_sensor",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Mirrors Dagster's runs into JobRun, which the company's dashboards read, and cancels runs that wait "
    "in the queue longer than their job's limit.",
    **owners_and_tags("job_run_sensor"),
)
def job_run_sensor(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SkipReason:
    """Mirror the runs that changed since the last tick, and cancel expired runs."""
    with user_facing_failures():
        changed, cursor = mirror_changed_runs(context.instance, database, _read_cursor(context.cursor))
    if cursor is not None:
        context.update_cursor(cursor.isoformat())
    expired = cancel_expired_runs(context.instance)
    summary = f"JobRun rows added or updated: {changed}. This sensor never launches runs."
    return dg.SkipReason(f"{summary} Expired runs canceled: {expired}." if expired else summary)


def mirror_changed_runs(
    instance: dg.DagsterInstance, database: DatabaseResource, cursor: datetime | None
) -> tuple[int, datetime | None]:
    """Mirror the runs that changed since `cursor` (UTC; None: all), oldest change first, in bounded pages.

    Returns:
        The number of rows added or updated, and the update time up to which every run is mirrored.
    """
    sessions = database.sessions()
    changed = 0
    deadline = time.monotonic() + MAX_TICK_SECONDS
    for page in _changed_runs(instance, cursor - OVERLAP if cursor is not None else None):
        changed += _mirror(instance, sessions, page)
        newest = page[-1].update_timestamp
        cursor = max(cursor, newest) if cursor is not None else newest
        if time.monotonic() > deadline:
            break
    return changed + _mirror_unfinished(instance, sessions), cursor


def _changed_runs(instance: dg.DagsterInstance, after: datetime | None) -> Iterator[Sequence[dg.RunRecord]]:
    """Yield pages of the runs that changed after this time (UTC; None: all), the oldest change first.

    Dagster's filter is an exclusive time, and many runs may have the same update time, but none is missed. A record may
    be yielded twice if it changes meanwhile or shares its update time with others. A page has at most RECORDS_PER_PAGE.
    """
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=after), limit=RECORDS_PER_PAGE, order_by="update_timestamp", ascending=True
        )
        if page:
            yield page
        if len(page) < RECORDS_PER_PAGE:
            return
        newest = page[-1].update_timestamp
        if page[0].update_timestamp == newest:
            # More runs share this update time than fit on a page, so they are paged in creation order.
            yield from _changed_at(instance, newest)
            after = newest
        else:
            after = newest - TIMESTAMP_RESOLUTION


def _changed_at(instance: dg.DagsterInstance, time: datetime) -> Iterator[Sequence[dg.RunRecord]]:
    cursor: str | None = None
    while True:
        page = instance.get_run_records(
            dg.RunsFilter(updated_after=time - TIMESTAMP_RESOLUTION, updated_before=time + TIMESTAMP_RESOLUTION),
            limit=RECORDS_PER_PAGE,
            ascending=True,
            cursor=cursor,
        )
        if page:
            yield page
        if len(page) < RECORDS_PER_PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _mirror_unfinished(instance: dg.DagsterInstance, sessions: sessionmaker[Session]) -> int:
    """Mirror the runs again that are unfinished in JobRun.

    An event has the time of the machine where it happened: if that clock is behind, or the event was stored late, the
    run seems to have changed before the cursor. And a retry of an op does not change the run's update time.
    """
    with sessions() as session:
        run_ids = unfinished_runs(session, limit=UNFINISHED_RUNS)
    if not run_ids:
        return 0
    return _mirror(instance, sessions, instance.get_run_records(dg.RunsFilter(run_ids=run_ids)))


def _mirror(instance: dg.DagsterInstance, sessions: sessionmaker[Session], records: Sequence[dg.RunRecord]) -> int:
    """Mirror these runs with their events in one transaction; return the number of rows added or updated."""
    started = {record.dagster_run.run_id: record for record in records if status_of(record.dagster_run) != "PENDING"}
    failed = [record for record in records if record.dagster_run.status is dg.DagsterRunStatus.FAILURE]
    events = read_events(instance, list(started), failed=[record.dagster_run.run_id for record in failed])
    facts = [to_run_snapshot(record, events.get(record.dagster_run.run_id)) for record in records]
    failures = [failure_to_record(record, events[record.dagster_run.run_id]) for record in failed]
    return run_in_transaction(sessions, partial(_record, facts=facts, failures=failures))


def _record(session: Session, facts: Sequence[RunSnapshot], failures: Sequence[RunFailure]) -> int:
    changed = mirror_runs(session, facts)
    record_failures(session, failures)
    return changed


def _read_cursor(text: str | None) -> datetime | None:
    """Return the cursor's time; None, which mirrors all runs again, if it can't be parsed (people may edit it)."""
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


defs = dg.Definitions(sensors=[job_run_sensor])
