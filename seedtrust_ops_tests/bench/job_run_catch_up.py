"""Measures how long JobRun takes to catch up with changed runs: `python -m ... [--runs N] [--built-in]`.

It is no test and bounds nothing. `--built-in` also reads the same runs' events the way that Dagster's own storage
offers, one run at a time, which is what its run-status sensors do.
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
from seedtrust_ops_tests.monitoring.run_history import copies, in_lumps, real_runs, write
from seedtrust_ops_tests.support.dagster_homes import dagster_home_of_its_own, instance_of
from seedtrust_ops_tests.support.databases import folder_for_a_server, plain


def main() -> None:
    """Set up the databases and a history, and catch up with it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--built-in", action="store_true")
    arguments = parser.parse_args()
    with folder_for_a_server() as folder, tempfile.TemporaryDirectory() as home:
        server = embedded_postgres.start(folder / "d")
        try:
            application = embedded_postgres.ensure_database(server, "measuring")
            migrate(create_application_engine(application), create_platform=True)
            os.environ["SEEDTRUST_DATABASE_URL"] = plain(application)
            with dagster_home_of_its_own(server, Path(home, "home")) as there, instance_of(there) as instance:
                history = copies(real_runs(instance), arguments.runs, in_lumps(datetime.now(UTC) - timedelta(hours=1)))
                write(create_engine(there.storage_url), history)
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
    _say(f"{rows} rows in {ticks} ticks: {time.monotonic() - began:.1f} s")


def _read_one_by_one(instance: dg.DagsterInstance, run_ids: list[str]) -> None:
    began = time.monotonic()
    for run_id in run_ids:
        instance.event_log_storage.get_logs_for_run(run_id, of_type={RETRY, RETURN, *FAILURES})
    _say(f"Reading the events alone, one run at a time: {time.monotonic() - began:.1f} s, {len(run_ids)} statements")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
