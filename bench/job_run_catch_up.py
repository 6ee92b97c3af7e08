"""Part (f): JobRun's catch-up with a history of changed runs, and Dagster's run-status sensors on the same history."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor
from sqlalchemy import create_engine, text

from bench.environment import start_database_server
from bench.measurements import Measurement, Part, log_line
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops_tests.monitoring.run_history import build_history, execute_sample_runs, in_bursts, write_history
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, temporary_database
from seedtrust_ops_tests.support.environment import process_environment

RUNS = 10_000
ROUNDS = 5
LOOP_SECONDS = 5
"""The interval of Dagster's sensor loop: a run-status sensor that is behind continues at the next tick."""


def measure(_large: bool) -> Part:
    part = Part(
        "f",
        f"JobRun's catch-up with {RUNS:,} changed runs",
        "Both read the same history in Dagster's storage. SeedTrust Ops mirrors each run with its result or its error. "
        "The run-status sensor is Dagster's built-in one for successful runs, and here it only counts them. One such "
        f"sensor is needed per status, and each of its ticks takes one turn of the daemon's {LOOP_SECONDS} s loop.",
    )
    log_line(f"(f) {RUNS:,} runs")
    with (
        start_database_server() as server,
        TemporaryDirectory() as folder,
        temporary_dagster_home(server, Path(folder, "home")) as home,
        open_instance(home) as instance,
    ):
        # The runs log what they do and how they fail, which is not needed here.
        with redirect_stderr(StringIO()):
            samples = execute_sample_runs(instance)
        write_history(
            create_engine(home.storage_url),
            build_history(samples, RUNS, in_bursts(datetime.now(UTC) - timedelta(hours=1))),
        )
        seconds = []
        for _ in range(ROUNDS):
            with _application(server) as catch_up:
                began = time.perf_counter()
                catch_up(instance)
                seconds.append(time.perf_counter() - began)
        part.add(Measurement("SeedTrust Ops: catch-up, all statuses", seconds))
        _measure_sensor(part, instance, home)
    return part


@contextmanager
def _application(server: object) -> Iterator[Callable[[dg.DagsterInstance], None]]:
    """Yield a function that mirrors an instance's runs into an empty JobRun table."""
    with (
        temporary_database(server) as url,  # type: ignore[arg-type]
        process_environment(SEEDTRUST_DATABASE_URL=plain_url(url)),
    ):
        create_platform_schema(url)
        migrate(create_application_engine(url))

        def catch_up(instance: dg.DagsterInstance) -> None:
            cursor, changed = None, 1
            while changed:
                changed, cursor = mirror_changed_runs(instance, DatabaseResource(), cursor)

        yield catch_up


def _measure_sensor(part: Part, instance: dg.DagsterInstance, home: DagsterHome) -> None:
    """Tick a run-status sensor until it has seen all successful runs."""
    seen: list[str] = []

    @dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitor_all_code_locations=True)
    def counting_sensor(context: dg.RunStatusSensorContext) -> None:
        seen.append(context.dagster_run.run_id)

    with create_engine(home.storage_url).connect() as connection:
        succeeded = connection.scalar(text("select count(*) from runs where status = 'SUCCESS'")) or 0
    repository = dg.Definitions(sensors=[counting_sensor]).get_repository_def()
    # Without a cursor it would start with future events.
    cursor, ticks, seconds = RunStatusSensorCursor(record_id=0).to_json(), 0, []
    while len(seen) < succeeded:
        began = time.perf_counter()
        context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
        result = counting_sensor.evaluate_tick(context)
        seconds.append(time.perf_counter() - began)
        cursor, ticks = result.cursor or cursor, ticks + 1
    part.add(
        Measurement(
            "run-status sensor: one tick", seconds, note=f"{len(seen):,} of {succeeded:,} runs in {ticks} ticks"
        )
    )
    part.add(
        Measurement(
            "run-status sensor: catch-up, one of five statuses",
            [sum(seconds) + ticks * LOOP_SECONDS],
            note=f"measured ticks plus {LOOP_SECONDS} s per tick",
        )
    )
