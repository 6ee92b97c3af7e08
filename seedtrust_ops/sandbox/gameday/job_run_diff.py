"""Lays JobRun beside Dagster's own runs, row by row.

It waits for the mirror to catch up and changes neither.
"""

import time

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.tables import JobRun

MIRROR_SECONDS = 60.0
LOOK_SECONDS = 0.5
RESOLUTIONS = {
    dg.DagsterRunStatus.SUCCESS: {"COMPLETED"},
    dg.DagsterRunStatus.FAILURE: {"ERROR"},
    dg.DagsterRunStatus.CANCELED: {"REVOKED", "EXPIRED"},
}


def differences(
    sessions: "sessionmaker[Session]", instance: dg.DagsterInstance, *, seconds: float = MIRROR_SECONDS
) -> list[str]:
    """Return how JobRun differs from Dagster's runs, a sentence each, once so many seconds have not mended it."""
    deadline = time.monotonic() + seconds
    while (found := _differences(sessions, instance)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return found


def _differences(sessions: "sessionmaker[Session]", instance: dg.DagsterInstance) -> list[str]:
    with sessions() as session:
        rows = {row.run_id: row for row in session.scalars(select(JobRun))}
    runs = {run.run_id: run for run in instance.get_runs()}
    found = [f"run {run_id} of Dagster is not in it." for run_id in runs.keys() - rows.keys()]
    found += [f"row {run_id} is no run of Dagster." for run_id in rows.keys() - runs.keys()]
    for run_id in runs.keys() & rows.keys():
        run, row = runs[run_id], rows[run_id]
        if row.resolution not in RESOLUTIONS.get(run.status, {None}):
            found.append(f"run {run_id} of {run.job_name} is {run.status.value}, and the row {row.status}.")
    return sorted(found)
