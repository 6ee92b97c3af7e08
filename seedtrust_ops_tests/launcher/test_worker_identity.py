"""A worker is told by more than its pid, so that no other process is taken for it, and none is interrupted for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus

from seedtrust_ops.launcher import warm_run_launcher
from seedtrust_ops.launcher.warm_run_launcher import WarmRunLauncher
from seedtrust_ops.launcher.worker_identity import WORKER_TAG, WorkerProcess
from seedtrust_ops_tests.support.waiters import wait_until


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until somebody ends it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        yield process
        process.kill()


def health(worker: WorkerProcess) -> WorkerStatus:
    run = dg.DagsterRun(job_name="some_job", tags=worker.tags)
    return warm_launcher().check_run_worker_health(run).status


def warm_launcher() -> WarmRunLauncher:
    launcher = WarmRunLauncher.from_config_value(None, {})
    assert isinstance(launcher, WarmRunLauncher)
    return launcher


def test_a_worker_is_read_back_from_its_runs_tags() -> None:
    worker = WorkerProcess.this_one()
    assert WorkerProcess.of(worker.tags) == worker
    assert WorkerProcess.of({}) is None
    assert health(worker) is WorkerStatus.RUNNING


def test_another_process_with_the_workers_pid_is_neither_taken_for_it_nor_interrupted(
    child: subprocess.Popen[bytes],
) -> None:
    worker = WorkerProcess.with_pid(child.pid)
    assert worker is not None
    for other in (replace(worker, started=worker.started - 1), replace(worker, boot="before the restart")):
        assert health(other) is WorkerStatus.FAILED
        assert not other.interrupt()
    assert child.poll() is None
    assert health(worker) is WorkerStatus.RUNNING
    assert worker.interrupt()
    child.wait(120)


def test_a_dead_worker_is_dead_before_its_parent_has_collected_it(child: subprocess.Popen[bytes]) -> None:
    worker = WorkerProcess.with_pid(child.pid)
    assert worker is not None
    child.kill()
    wait_until(lambda: health(worker) is WorkerStatus.FAILED, what="the child's death to be noticed")
    assert not worker.interrupt()
    assert WorkerProcess.with_pid(child.pid) is None
    child.wait(120)
    assert health(worker) is WorkerStatus.FAILED


def test_what_can_not_be_seen_from_here_is_not_called_dead() -> None:
    elsewhere = replace(WorkerProcess.this_one(), host="another-machine", pid=2**22 + os.getpid())
    assert health(elsewhere) is WorkerStatus.RUNNING
    of_another_launcher = dg.DagsterRun(job_name="some_job", tags={".dagster/grpc_info": "{}"})
    assert WORKER_TAG not in of_another_launcher.tags
    assert warm_launcher().check_run_worker_health(of_another_launcher).status is WorkerStatus.RUNNING


def test_where_there_is_no_linux_dagsters_own_launcher_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(warm_run_launcher.sys, "platform", platform)
        assert type(WarmRunLauncher.from_config_value(None, {})) is DefaultRunLauncher
