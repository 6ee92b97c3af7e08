"""Deletes old runs from Dagster's own tables in pages: Dagster itself keeps every run and every event for ever.

Its own way deletes one run at a time, in nine statements. What is deleted here is what that deletes; what is kept is
what something still rests on. How old is too old, and whether JobRun has a run's end, is for the caller to say.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

RUNS_A_PAGE = 500
FINISHED = ("SUCCESS", "FAILURE", "CANCELED")

# Dagster keeps these times without a zone, in UTC.
_PAGE = text(
    """
    select id, run_id, update_timestamp from runs
    where status = any(cast(:statuses as text[])) and update_timestamp < cast(:before as timestamptz) at time zone 'UTC'
      and (cast(:jobs as text[]) is null or pipeline_name = any(cast(:jobs as text[])))
      and (update_timestamp, id) > (cast(:after as timestamp), :after_id)
    order by update_timestamp, id limit :page
    """
)
# The newest run of a job and of a schedule: `jobs/scheduling.py` looks at what was launched last, however long ago.
# The run that last made an asset, or a partition of one: without it the asset's page would call it never made.
_KEPT = text(
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
class Age:
    """Finished runs that changed last before `before` (aware) are too old: of these statuses, of these jobs or all."""

    before: datetime
    statuses: Sequence[str] = FINISHED
    jobs: Sequence[str] | None = None


@dataclass(frozen=True)
class Cleared:
    """How many runs were deleted, how many are too old and were kept, and whether all were looked at."""

    deleted: int
    kept: int
    is_complete: bool


def delete_old_runs(
    engine: Engine,
    ages: Sequence[Age],
    *,
    may_go: Callable[[Sequence[str]], Collection[str]],
    forget_output: Callable[[Sequence[str]], None],
    is_over: Callable[[], bool],
) -> Cleared:
    """Delete the runs that are too old, with their events, tags and output; each page is committed by itself.

    Args:
        engine: on Dagster's database.
        ages: which runs are too old; only finished ones ever are.
        may_go: given ids of such runs, returns those that nobody else still needs.
        forget_output: deletes what these runs printed. It comes first, so that none is left behind for ever where this
            ends in between.
        is_over: asked before each page whether to leave the rest for the next time.
    """
    with engine.connect() as connection:
        kept = set(connection.scalars(_KEPT))
    deleted = 0
    left: set[str] = set()
    for page in (page for age in ages for page in _pages(engine, age)):
        if is_over():
            return Cleared(deleted, len(left), is_complete=False)
        going = sorted(set(may_go([run_id for run_id in page if run_id not in kept])))
        if going:
            forget_output(going)
            with engine.begin() as connection:
                deleted += _delete(connection, going)
        # One run can be too old for two reasons.
        left |= set(page) - set(going)
    return Cleared(deleted, len(left), is_complete=True)


def _pages(engine: Engine, age: Age) -> Iterator[list[str]]:
    """Yield the ids of runs that are too old, the oldest first."""
    asked: dict[str, Any] = {
        "statuses": [status for status in age.statuses if status in FINISHED],
        "jobs": None if age.jobs is None else list(age.jobs),
        "before": age.before,
        "after": "-infinity",
        "after_id": 0,
        "page": RUNS_A_PAGE,
    }
    while True:
        with engine.connect() as connection:
            rows = connection.execute(_PAGE, asked).all()
        if rows:
            yield [row.run_id for row in rows]
        if len(rows) < RUNS_A_PAGE:
            return
        asked |= {"after": rows[-1].update_timestamp, "after_id": rows[-1].id}


def _delete(connection: Connection, run_ids: Sequence[str]) -> int:
    # A run that is finished stays so; this makes sure of it.
    finished = list(connection.scalars(_LOCK, {"run_ids": list(run_ids), "statuses": list(FINISHED)}))
    for statement in _DELETE:
        connection.execute(statement, {"run_ids": finished})
    return len(finished)
