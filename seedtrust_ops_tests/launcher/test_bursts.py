"""Bursts of runs on a real daemon: each executes once, and nothing of them is left behind.

`python -m seedtrust_ops_tests.bench.warm_runs` runs larger ones, and says what they cost.
"""

import signal
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from seedtrust_ops.launcher.host_socket import SOCKET
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon
from seedtrust_ops_tests.launcher.run_reports import Marks
from seedtrust_ops_tests.support.waiters import wait_until

MANY = 200


def connections_of_others(daemon: QuickDaemon) -> int:
    """How many connections others than this query have to Dagster's storage."""
    engine = create_engine(daemon.home.storage_url, poolclass=NullPool)
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def succeed(daemon: QuickDaemon, ids: list[str]) -> None:
    finished = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.SUCCESS])
    wait_until(lambda: daemon.instance.get_runs_count(finished) == len(ids), seconds=500, every=0.1, what="the burst")


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("runs", [20, pytest.param(MANY, marks=pytest.mark.long_launcher)])
def test_bursts_execute_every_run_once_and_leave_nothing(daemon: QuickDaemon, tmp_path: Path, runs: int) -> None:
    marks = Marks(tmp_path)
    succeed(daemon, daemon.submit("leave_a_mark", run_config=marks.config()))
    (zygote,) = daemon.zygotes
    host = daemon.run_host
    wait_until(lambda: host.children(recursive=True) == [zygote], what="the end of the first run's process")
    before = host.num_fds(), zygote.num_fds()
    ids = []
    for _ in range(2):
        burst = daemon.submit("leave_a_mark", runs // 2, run_config=marks.config())
        succeed(daemon, burst)
        ids += burst

    assert sorted(mark.run_id for mark in marks.left()[1:]) == sorted(ids)
    assert len({mark.random for mark in marks.left()}) == 1 + len(ids)
    assert all("was forked from a warm process" in daemon.how_started(run_id) for run_id in ids)
    assert daemon.zygotes == [zygote]
    # The last runs have told of their success, and are then given time to go.
    wait_until(lambda: host.children(recursive=True) == [zygote], what="the end of the runs' processes")
    # The launcher stays connected by its latest call, for which it gives up the one before.
    # Where the first run's file was still open when they were counted, there is one less now.
    wait_until(lambda: host.num_fds() <= before[0] and zygote.num_fds() <= before[1], what="files to be closed")

    daemon.stop()
    host.send_signal(signal.SIGTERM)
    wait_until(lambda: not daemon.family(), seconds=120, what="the end of every process")
    assert not (daemon.launcher_folder / SOCKET).exists()
    wait_until(lambda: connections_of_others(daemon) == 0, what="the database to be left")
