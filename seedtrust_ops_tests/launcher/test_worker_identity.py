"""A worker is identified by more than its pid, so that no other process is mistaken for it or interrupted instead."""

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
from seedtrust_ops.launcher.worker_identity import WorkerIdentity
from seedtrust_ops.tag_names import WORKER_TAG
from seedtrust_ops_tests.support.waiters import wait_until


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        yield process
        process.kill()


def check_health(worker: WorkerIdentity) -> WorkerStatus:
    run = dg.DagsterRun(job_name="some_job", tags=worker.tags)
    return create_warm_launcher().check_run_worker_health(run).status


def create_warm_launcher() -> WarmRunLauncher:
    launcher = WarmRunLauncher.from_config_value(None, {})
    assert isinstance(launcher, WarmRunLauncher)
    return launcher


def test_worker_is_read_back_from_run_tags() -> None:
    worker = WorkerIdentity.of_current_process()
    assert WorkerIdentity.from_tags(worker.tags) == worker
    assert WorkerIdentity.from_tags({}) is None
    assert check_health(worker) is WorkerStatus.RUNNING


@pytest.mark.usefixtures("child_processes")
def test_reused_pid_is_neither_alive_nor_interrupted(
    child: subprocess.Popen[bytes],
) -> None:
    worker = WorkerIdentity.from_pid(child.pid)
    assert worker is not None
    for other in (replace(worker, started=worker.started - 1), replace(worker, boot="before the restart")):
        assert check_health(other) is WorkerStatus.FAILED
        assert not other.interrupt()
    assert child.poll() is None
    assert check_health(worker) is WorkerStatus.RUNNING
    assert worker.interrupt()
    child.wait(120)


@pytest.mark.usefixtures("child_processes")
def test_crashed_worker_is_detected_before_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    worker = WorkerIdentity.from_pid(child.pid)
    assert worker is not None
    child.kill()
    wait_until(lambda: check_health(worker) is WorkerStatus.FAILED, what="the crash to be detected")
    assert not worker.interrupt()
    assert WorkerIdentity.from_pid(child.pid) is None
    child.wait(120)
    assert check_health(worker) is WorkerStatus.FAILED


def test_worker_that_is_not_visible_here_counts_as_running() -> None:
    elsewhere = replace(WorkerIdentity.of_current_process(), host="another-machine", pid=2**22 + os.getpid())
    assert check_health(elsewhere) is WorkerStatus.RUNNING
    other_launcher_run = dg.DagsterRun(job_name="some_job", tags={".dagster/grpc_info": "{}"})
    assert WORKER_TAG not in other_launcher_run.tags
    assert create_warm_launcher().check_run_worker_health(other_launcher_run).status is WorkerStatus.RUNNING


def test_default_launcher_is_used_outside_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(warm_run_launcher.sys, "platform", platform)
        assert type(WarmRunLauncher.from_config_value(None, {})) is DefaultRunLauncher
