"""Compares the table JobRun with Dagster's own runs, row by row.

It waits for the mirror to catch up and changes neither side.
"""

import time

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.tables import JobRun

CATCH_UP_SECONDS = 60.0
POLL_SECONDS = 0.5
RESOLUTIONS = {
    dg.DagsterRunStatus.SUCCESS: {"COMPLETED"},
    dg.DagsterRunStatus.FAILURE: {"ERROR"},
    dg.DagsterRunStatus.CANCELED: {"REVOKED", "EXPIRED"},
}


def job_run_differences(
    sessions: "sessionmaker[Session]", instance: dg.DagsterInstance, *, seconds: float = CATCH_UP_SECONDS
) -> list[str]:
    """Return one sentence for each difference that is still there after `seconds`; empty as soon as there is none."""
    deadline = time.monotonic() + seconds
    while (found := _differences(sessions, instance)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return found


def _differences(sessions: "sessionmaker[Session]", instance: dg.DagsterInstance) -> list[str]:
    with sessions() as session:
        rows = {row.run_id: row for row in session.scalars(select(JobRun))}
    runs = {run.run_id: run for run in instance.get_runs()}
    found = [f"Dagster run {run_id} has no JobRun row." for run_id in runs.keys() - rows.keys()]
    found += [f"JobRun row {run_id} has no Dagster run." for run_id in rows.keys() - runs.keys()]
    for run_id in runs.keys() & rows.keys():
        run, row = runs[run_id], rows[run_id]
        if row.resolution not in RESOLUTIONS.get(run.status, {None}):
            found.append(f"Run {run_id} of {run.job_name} is {run.status.value} in Dagster but {row.status} in JobRun.")
    return sorted(found)
