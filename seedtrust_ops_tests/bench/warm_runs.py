"""Measures the cost of a run with our warm launcher and with Dagster's: `python -m ...bench.warm_runs [--runs N]`.

It checks no limit: it runs the same bursts of a job that does nothing on a real daemon, first with our launcher and
then with Dagster's, and prints seconds and CPU seconds per run, and the unshared memory of a forked run.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import psutil

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.launcher.quick_daemon import (
    LAUNCHER,
    QuickDaemon,
    change_settings,
    quick_daemon,
    use_quick_jobs,
)
from seedtrust_ops_tests.support.dagster_homes import open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.databases import postgres_folder
from seedtrust_ops_tests.support.waiters import wait_until

HELD_RUNS = 5
MAX_WAIT_SECONDS = 3600.0


def main() -> None:
    """Measure both launchers on the same database server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            for name, launcher in (("warm", LAUNCHER), ("Dagster's launcher", "")):
                with TemporaryDirectory() as home_folder, _daemon(server, Path(home_folder), launcher) as daemon:
                    _measure(name, daemon, runs)
                    if launcher:
                        _measure_memory(daemon, Path(home_folder))
        finally:
            embedded_postgres.stop(folder / "d")


@contextmanager
def _daemon(server: object, folder: Path, launcher: str) -> Iterator[QuickDaemon]:
    with temporary_dagster_home(server, folder / "home") as home:  # type: ignore[arg-type]
        use_quick_jobs(home)
        change_settings(home, LAUNCHER, launcher)
        with open_instance(home) as instance, quick_daemon(home, instance) as daemon:
            yield daemon


def _measure(name: str, daemon: QuickDaemon, runs: int) -> None:
    _burst(daemon, 1)
    before = _cpu_seconds(daemon)
    began = time.monotonic()
    _burst(daemon, runs)
    wall = time.monotonic() - began
    after = _cpu_seconds(daemon)
    _print_line(
        f"{name}: {runs} runs in {wall:.1f} s ({wall / runs:.2f} s each); CPU seconds per run: "
        + ", ".join(f"{part} {(after[part] - before[part]) / runs:.3f}" for part in sorted(after))
    )


def _burst(daemon: QuickDaemon, runs: int) -> None:
    ids = daemon.submit("nothing", runs)
    finished = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.SUCCESS])
    wait_until(
        lambda: daemon.instance.get_runs_count(finished) == runs,
        seconds=MAX_WAIT_SECONDS,
        every=0.2,
        what="the burst",
    )


def _cpu_seconds(daemon: QuickDaemon) -> dict[str, float]:
    """Return the CPU seconds of the daemon, and of the launching processes with all runs they have reaped."""
    seconds = {"daemon": 0.0, "runs and launcher": 0.0}
    for process in daemon.find_processes():
        spent = sum(process.cpu_times()[:4])
        seconds["daemon" if "dagster._daemon" in process.cmdline() else "runs and launcher"] += spent
    return seconds


def _measure_memory(daemon: QuickDaemon, folder: Path) -> None:
    (file, release) = folder / "report", folder / "report.release"
    config = {"ops": {"report_run": {"config": {"file": str(file), "hold": True}}}}
    ids = daemon.submit("report_run", HELD_RUNS, run_config=config)
    wait_until(lambda: file.exists() and len(file.read_text().splitlines()) == HELD_RUNS, seconds=60)
    unshared = sorted(psutil.Process(daemon.worker(run_id).pid).memory_full_info().uss / 2**20 for run_id in ids)
    _print_line(f"unshared memory of a forked run: {unshared[0]:.0f} to {unshared[-1]:.0f} MB")
    release.touch()
    for run_id in ids:
        daemon.wait_for(run_id, dg.DagsterRunStatus.SUCCESS)


def _print_line(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
