"""Purges old runs from Dagster's own tables in pages, because Dagster itself never deletes a run or an event.

It deletes the same rows as Dagster's `delete_run`, which takes nine statements per run, and keeps the runs that other
features still need. The caller decides how old is too old, and whether JobRun has recorded a run's end.
See docs/decisions/retention.md.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

PAGE_SIZE = 500
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

# Dagster stores these times without a time zone, in UTC.
_PAGE = text(
    """
    select id, run_id, update_timestamp from runs
    where status = any(cast(:statuses as text[])) and update_timestamp < cast(:before as timestamptz) at time zone 'UTC'
      and (cast(:jobs as text[]) is null or pipeline_name = any(cast(:jobs as text[])))
      and (update_timestamp, id) > (cast(:after as timestamp), :after_id)
    order by update_timestamp, id limit :page
    """
)
# The newest run of each job and schedule: `orchestration/schedules.py` reads the last launch, however long ago it was.
# The run that last materialized an asset or partition: without it, the asset's page would say never materialized.
_REQUIRED = text(
    """
    select run_id from runs where id in (select max(id) from runs group by pipeline_name)
    union
    select run_id from runs where id in (
        select max(r.id) from run_tags t join runs r on r.run_id = t.run_id
        where t.key = 'dagster/schedule_name' group by t.value, r.pipeline_name
    )
    union
    select run_id from event_logs where id in (
        select max(id) from event_logs
        where dagster_event_type = 'ASSET_MATERIALIZATION' and asset_key is not null
        group by asset_key, partition
    )
    """
)
_LOCK = text(
    "select run_id from runs where run_id = any(cast(:run_ids as text[])) and status = any(cast(:statuses as text[])) "
    "for update"
)
_DELETE = tuple(
    text(statement)
    for statement in (
        """
        delete from asset_event_tags where event_id in (
            select id from event_logs where run_id = any(cast(:run_ids as text[]))
              and dagster_event_type in ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION')
        )
        """,
        "delete from event_logs where run_id = any(cast(:run_ids as text[]))",
        "delete from run_tags where run_id = any(cast(:run_ids as text[]))",
        "delete from runs where run_id = any(cast(:run_ids as text[]))",
    )
)


@dataclass(frozen=True)
class RetentionRule:
    """Selects old runs: finished, last updated before `before` (aware), with these statuses, of these jobs or all."""

    before: datetime
    statuses: Sequence[str] = FINISHED
    jobs: Sequence[str] | None = None


@dataclass(frozen=True)
class PurgeResult:
    """How many runs were deleted, how many are too old but were kept, and whether every page was processed."""

    deleted: int
    kept: int
    is_complete: bool


def purge_runs(
    engine: Engine,
    rules: Sequence[RetentionRule],
    *,
    select_deletable: Callable[[Sequence[str]], Collection[str]],
    delete_output: Callable[[Sequence[str]], None],
    is_time_up: Callable[[], bool],
) -> PurgeResult:
    """Delete the runs that are too old, with their events, tags and output; each page is its own transaction.

    Args:
        engine: for Dagster's database.
        rules: which runs are too old; runs that have not finished never are.
        select_deletable: given ids of such runs, returns those that the caller no longer needs.
        delete_output: deletes the captured output of these runs. It is called first, so that a crash in between leaves
            no output behind forever.
        is_time_up: checked before each page; if true, the rest is left for the next call.
    """
    with engine.connect() as connection:
        required = set(connection.scalars(_REQUIRED))
    deleted = 0
    kept: set[str] = set()
    for page in (page for rule in rules for page in _read_pages(engine, rule)):
        if is_time_up():
            return PurgeResult(deleted, len(kept), is_complete=False)
        deletable = sorted(set(select_deletable([run_id for run_id in page if run_id not in required])))
        if deletable:
            delete_output(deletable)
            with engine.begin() as connection:
                deleted += _delete(connection, deletable)
        # A set, because two rules can match the same run.
        kept |= set(page) - set(deletable)
    return PurgeResult(deleted, len(kept), is_complete=True)


def _read_pages(engine: Engine, rule: RetentionRule) -> Iterator[list[str]]:
    """Yield pages of ids of the runs that are too old, the oldest first."""
    parameters: dict[str, Any] = {
        "statuses": [status for status in rule.statuses if status in FINISHED],
        "jobs": None if rule.jobs is None else list(rule.jobs),
        "before": rule.before,
        "after": "-infinity",
        "after_id": 0,
        "page": PAGE_SIZE,
    }
    while True:
        with engine.connect() as connection:
            rows = connection.execute(_PAGE, parameters).all()
        if rows:
            yield [row.run_id for row in rows]
        if len(rows) < PAGE_SIZE:
            return
        parameters |= {"after": rows[-1].update_timestamp, "after_id": rows[-1].id}


def _delete(connection: Connection, run_ids: Sequence[str]) -> int:
    # A finished run should never change its status; the lock makes sure of it.
    finished = list(connection.scalars(_LOCK, {"run_ids": list(run_ids), "statuses": list(FINISHED)}))
    for statement in _DELETE:
        connection.execute(statement, {"run_ids": finished})
    return len(finished)
