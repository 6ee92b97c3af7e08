"""How long a sensor waits before it requests a run again after runs that did not succeed.

A sensor evaluates every few seconds, so without a pause a job that keeps failing would be launched all day. Which runs
belong together is decided by the sensor.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

FIRST_PAUSE = timedelta(seconds=30)
"""Longer than any pause between the retries of an op."""
MAX_PAUSE = timedelta(minutes=10)
RUNS_READ = 20
"""More failures in a row than it takes to reach MAX_PAUSE."""


def read_recent_runs(
    instance: dg.DagsterInstance, job_name: str, tags: dict[str, str] | None = None
) -> Sequence[dg.RunRecord]:
    """Return the job's last runs with these tags, newest first."""
    return instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags), limit=RUNS_READ)


def describe_pause(records: Iterable[dg.RunRecord], now: datetime) -> str | None:
    """Return why no run is requested now, or None if the pause after the last failures is over or none failed.

    Args:
        records: the runs that belong together, newest first; the ones before a success do not count.
        now: aware.
    """
    ended: list[float] = []
    for record in records:
        if record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            break
        if record.end_time is not None:
            ended.append(record.end_time)
    if not ended:
        return None
    next_run = datetime.fromtimestamp(ended[0], UTC) + min(FIRST_PAUSE * 2 ** (len(ended) - 1), MAX_PAUSE)
    if now >= next_run:
        return None
    which = "the last run" if len(ended) == 1 else f"the last {len(ended)} runs"
    return f"{which} did not succeed. The next run is at {next_run:%H:%M:%S} UTC."
