"""`python -m seedtrust_ops_tests.bench.warm_runs [--runs N]`: what a run costs, warm and with Dagster's launcher.

It bounds nothing: it runs the same bursts of a job that does nothing on a real daemon, first with our launcher and
then with Dagster's, and prints seconds and CPU seconds a run, and the memory that a forked run has of its own.
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
from seedtrust_ops_tests.launcher.quick_daemon import LAUNCHER, QuickDaemon, change_settings, quick_daemon
from seedtrust_ops_tests.support.dagster_homes import dagster_home_of_its_own, instance_of
from seedtrust_ops_tests.support.databases import folder_for_a_server
from seedtrust_ops_tests.support.waiters import wait_until

HELD = 5
LONGEST_SECONDS = 3600.0


def main() -> None:
    """Measure both launchers on one server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        try:
            for name, launcher in (("warm", LAUNCHER), ("Dagster's launcher", "")):
                with TemporaryDirectory() as home_folder, _daemon(server, Path(home_folder), launcher) as daemon:
                    _measure(name, daemon, runs)
                    if launcher:
                        _weigh(daemon, Path(home_folder))
        finally:
            embedded_postgres.stop(folder / "d")


@contextmanager
def _daemon(server: object, folder: Path, launcher: str) -> Iterator[QuickDaemon]:
    with dagster_home_of_its_own(server, folder / "home") as home:  # type: ignore[arg-type]
        change_settings(home, LAUNCHER, launcher)
        with instance_of(home) as instance, quick_daemon(home, instance) as daemon:
            yield daemon


def _measure(name: str, daemon: QuickDaemon, runs: int) -> None:
    _burst(daemon, 1)
    before = _cpu_seconds(daemon)
    began = time.monotonic()
    _burst(daemon, runs)
    wall = time.monotonic() - began
    after = _cpu_seconds(daemon)
    _say(
        f"{name}: {runs} runs in {wall:.1f} s ({wall / runs:.2f} s each); CPU seconds a run: "
        + ", ".join(f"{part} {(after[part] - before[part]) / runs:.3f}" for part in sorted(after))
    )


def _burst(daemon: QuickDaemon, runs: int) -> None:
    ids = daemon.submit("nothing", runs)
    finished = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.SUCCESS])
    wait_until(
        lambda: daemon.instance.get_runs_count(finished) == runs, seconds=LONGEST_SECONDS, every=0.2, what="the burst"
    )


def _cpu_seconds(daemon: QuickDaemon) -> dict[str, float]:
    """CPU seconds of the processes that start runs, with all the runs that they have collected; and the daemon's."""
    seconds = {"daemon": 0.0, "runs and what starts them": 0.0}
    for process in daemon.family():
        spent = sum(process.cpu_times()[:4])
        seconds["daemon" if "dagster._daemon" in process.cmdline() else "runs and what starts them"] += spent
    return seconds


def _weigh(daemon: QuickDaemon, folder: Path) -> None:
    (file, go) = folder / "mark", folder / "mark.go"
    config = {"ops": {"leave_a_mark": {"config": {"file": str(file), "hold": True}}}}
    ids = daemon.submit("leave_a_mark", HELD, run_config=config)
    wait_until(lambda: file.exists() and len(file.read_text().splitlines()) == HELD, seconds=60)
    own = sorted(psutil.Process(daemon.worker(one).pid).memory_full_info().uss / 2**20 for one in ids)
    _say(f"memory of a forked run's own: {own[0]:.0f} to {own[-1]:.0f} MB")
    go.touch()
    for one in ids:
        daemon.wait_for(one, dg.DagsterRunStatus.SUCCESS)


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
