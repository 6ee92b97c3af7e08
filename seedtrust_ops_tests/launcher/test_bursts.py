"""Bursts of runs on a real daemon: each run executes once, and leaves no process, file or connection behind.

`python -m seedtrust_ops_tests.bench.warm_runs` runs larger bursts and measures what they cost.
"""

import signal
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from seedtrust_ops.launcher.host_client import SOCKET_FILE
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon
from seedtrust_ops_tests.launcher.worker_reports import RunReports
from seedtrust_ops_tests.support.tiers import long_version
from seedtrust_ops_tests.support.waiters import wait_until

LARGE_BURST = 200
SMALL_BURST = "launcher/test_bursts.py::test_burst_executes_every_run_once_and_leaves_nothing"


def count_other_connections(daemon: QuickDaemon) -> int:
    """Count the connections to Dagster's storage, without this query's own."""
    engine = create_engine(daemon.home.storage_url, poolclass=NullPool)
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def wait_for_success(daemon: QuickDaemon, ids: list[str]) -> None:
    finished = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.SUCCESS])
    wait_until(lambda: daemon.instance.get_runs_count(finished) == len(ids), seconds=500, every=0.1, what="the burst")


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("runs", [20, pytest.param(LARGE_BURST, marks=long_version(of=SMALL_BURST))])
def test_burst_executes_every_run_once_and_leaves_nothing(daemon: QuickDaemon, tmp_path: Path, runs: int) -> None:
    reports = RunReports(tmp_path)
    wait_for_success(daemon, daemon.submit("report_run", run_config=reports.config()))
    (zygote,) = daemon.zygotes
    host = daemon.run_host
    wait_until(lambda: host.children(recursive=True) == [zygote], what="the first run's process to exit")
    before = host.num_fds(), zygote.num_fds()
    ids = []
    for _ in range(2):
        burst = daemon.submit("report_run", runs // 2, run_config=reports.config())
        wait_for_success(daemon, burst)
        ids += burst

    assert sorted(report.run_id for report in reports.read_all()[1:]) == sorted(ids)
    assert len({report.random for report in reports.read_all()}) == 1 + len(ids)
    assert all("Warm start" in daemon.start_event(run_id) for run_id in ids)
    assert daemon.zygotes == [zygote]
    # The last runs have reported success, but their processes can take a moment to exit.
    wait_until(lambda: host.children(recursive=True) == [zygote], what="the runs' processes to exit")
    # The launcher keeps only its latest connection. If the first run's file was still open when the descriptors were
    # counted, there is one less now.
    wait_until(lambda: host.num_fds() <= before[0] and zygote.num_fds() <= before[1], what="files to be closed")

    daemon.stop()
    host.send_signal(signal.SIGTERM)
    wait_until(lambda: not daemon.find_processes(), seconds=120, what="every process to exit")
    assert not (daemon.launcher_folder / SOCKET_FILE).exists()
    wait_until(lambda: count_other_connections(daemon) == 0, what="the connections to close")
