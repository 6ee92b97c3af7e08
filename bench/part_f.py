"""(f) JobRun's catching up with a history of changed runs, beside Dagster's run-status sensors on the same history."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import pytest
from dagster._core.definitions.run_status_sensor_definition import RunStatusSensorCursor
from sqlalchemy import create_engine, text

from bench.figures import Figure, Part, say
from bench.ground import database_server
from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_engine, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops_tests.monitoring.run_history import copies, in_lumps, real_runs, write
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, dagster_home_of_its_own, instance_of
from seedtrust_ops_tests.support.databases import create_platform, own_database, plain

RUNS = 10_000
ROUNDS = 5
LOOP_SECONDS = 5
"""The turn of Dagster's sensor loop: a run-status sensor that is behind goes on at the next."""


def measure(_large: bool) -> Part:
    part = Part(
        "f",
        f"JobRun's catching up with {RUNS:,} changed runs",
        "Both see the same history in Dagster's storage. Ours mirrors each run with what it returned and how it "
        "failed; a run-status sensor is Dagster's own for runs that ended well, and here it only counts. One is needed "
        f"for each status, and each tick of one is a turn of the daemon's {LOOP_SECONDS} s loop.",
    )
    say(f"(f) {RUNS:,} runs")
    with (
        database_server() as server,
        TemporaryDirectory() as folder,
        dagster_home_of_its_own(server, Path(folder, "home")) as home,
        instance_of(home) as instance,
    ):
        # What these runs do and how they fail is told as they do it, and is of no interest here.
        with redirect_stderr(StringIO()):
            made = real_runs(instance)
        write(create_engine(home.storage_url), copies(made, RUNS, in_lumps(datetime.now(UTC) - timedelta(hours=1))))
        seconds = []
        for _ in range(ROUNDS):
            with _application(server) as catch_up:
                began = time.perf_counter()
                catch_up(instance)
                seconds.append(time.perf_counter() - began)
        part.add(Figure("ours: catching up, all statuses", seconds))
        _built_in(part, instance, home)
    return part


@contextmanager
def _application(server: object) -> Iterator[Callable[[dg.DagsterInstance], None]]:
    """Yield what mirrors an instance's runs into an empty JobRun."""
    with own_database(server) as url, pytest.MonkeyPatch.context() as patch:  # type: ignore[arg-type]
        create_platform(url)
        migrate(create_application_engine(url))
        patch.setenv("SEEDTRUST_DATABASE_URL", plain(url))
        get_settings.cache_clear()
        application_engine.cache_clear()

        def catch_up(instance: dg.DagsterInstance) -> None:
            cursor, changed = None, 1
            while changed:
                changed, cursor = mirror_changed_runs(instance, DatabaseResource(), cursor)

        yield catch_up
        application_engine().dispose()
        application_engine.cache_clear()
        get_settings.cache_clear()


def _built_in(part: Part, instance: dg.DagsterInstance, home: DagsterHome) -> None:
    """Tick a run-status sensor until it has seen all runs that ended well."""
    seen: list[str] = []

    @dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS, monitor_all_code_locations=True)
    def counting(context: dg.RunStatusSensorContext) -> None:
        seen.append(context.dagster_run.run_id)

    with create_engine(home.storage_url).connect() as connection:
        ended = connection.scalar(text("select count(*) from runs where status = 'SUCCESS'")) or 0
    repository = dg.Definitions(sensors=[counting]).get_repository_def()
    # Without a cursor it would begin with what happens from now on.
    cursor, ticks, seconds = RunStatusSensorCursor(record_id=0).to_json(), 0, []
    while len(seen) < ended:
        began = time.perf_counter()
        context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
        outcome = counting.evaluate_tick(context)
        seconds.append(time.perf_counter() - began)
        cursor, ticks = outcome.cursor or cursor, ticks + 1
    part.add(Figure("a run-status sensor: one tick", seconds, note=f"{len(seen):,} of {ended:,} runs in {ticks} ticks"))
    part.add(
        Figure(
            "a run-status sensor: catching up, one status of five",
            [sum(seconds) + ticks * LOOP_SECONDS],
            note=f"ticks measured, and {LOOP_SECONDS} s from one to the next",
        )
    )
