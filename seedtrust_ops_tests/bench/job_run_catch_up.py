"""Measures how long JobRun takes to catch up with changed runs: `python -m ... [--runs N] [--built-in]`.

It only prints times; it checks no limit. `--built-in` also reads the events of the same runs through Dagster's own
storage API, one run at a time, as its run-status sensors do.
"""

import argparse
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from sqlalchemy import create_engine

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.monitoring.run_events import FAILURES, RETRY, RETURN
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops_tests.monitoring.run_history import build_history, execute_sample_runs, in_bursts, write_history
from seedtrust_ops_tests.support.dagster_homes import open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.databases import plain_url, postgres_folder


def main() -> None:
    """Set up the databases and a run history, and catch up with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--built-in", action="store_true")
    arguments = parser.parse_args()
    with postgres_folder() as folder, tempfile.TemporaryDirectory() as home:
        server = embedded_postgres.start(folder / "d")
        try:
            application = embedded_postgres.ensure_database(server, "bench")
            migrate(create_application_engine(application), create_platform=True)
            os.environ["SEEDTRUST_DATABASE_URL"] = plain_url(application)
            with (
                temporary_dagster_home(server, Path(home, "home")) as dagster_home,
                open_instance(dagster_home) as instance,
            ):
                times = in_bursts(datetime.now(UTC) - timedelta(hours=1))
                history = build_history(execute_sample_runs(instance), arguments.runs, times)
                write_history(create_engine(dagster_home.storage_url), history)
                _catch_up(instance)
                if arguments.built_in:
                    _read_one_by_one(instance, [copy.run_id for copy in history])
        finally:
            embedded_postgres.stop(folder / "d")


def _catch_up(instance: dg.DagsterInstance) -> None:
    cursor, changed, ticks, rows, began = None, 1, 0, 0, time.monotonic()
    while changed:
        changed, cursor = mirror_changed_runs(instance, DatabaseResource(), cursor)
        ticks, rows = ticks + 1, rows + changed
    _print_line(f"{rows} rows in {ticks} ticks: {time.monotonic() - began:.1f} s")


def _read_one_by_one(instance: dg.DagsterInstance, run_ids: list[str]) -> None:
    began = time.monotonic()
    for run_id in run_ids:
        instance.event_log_storage.get_logs_for_run(run_id, of_type={RETRY, RETURN, *FAILURES})
    _print_line(
        f"Reading the events alone, one run at a time: {time.monotonic() - began:.1f} s, {len(run_ids)} statements"
    )


def _print_line(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
