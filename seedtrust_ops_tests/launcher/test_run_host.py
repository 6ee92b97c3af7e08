"""The run host ends runs only when it must, is found however long its folder's name, and goes when nobody needs it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster_postgres.utils import DagsterPostgresException

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.launcher import host_client
from seedtrust_ops.launcher.host_client import RunHostClient, RunNotStarted, listening_pid
from seedtrust_ops.launcher.host_socket import LAUNCHER_FOLDER, call, is_answered, listen, make_folder
from seedtrust_ops.launcher.run_host import take_over
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchOrder
from seedtrust_ops.supervisor.program import KeptRun
from seedtrust_ops.supervisor.worker_stack import run_host as run_host_of_the_worker
from seedtrust_ops_tests.launcher.quick_launches import QuickLaunches, quick_launches
from seedtrust_ops_tests.launcher.run_reports import Marks
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, instance_of
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)
UNFIT = """
import threading
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""
"""What code does that can't be forked."""


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    marks = Marks(tmp_path)
    yield marks
    # Where the test failed, a run may still be held.
    marks.let_go()


@pytest.fixture
def quick_instance(dagster_home: DagsterHome) -> Iterator[dg.DagsterInstance]:
    with instance_of(dagster_home) as instance:
        yield instance


@pytest.fixture
def launches(quick_instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[QuickLaunches]:
    with quick_launches(quick_instance, tmp_path) as launches:
        yield launches


@contextmanager
def run_host(
    home: DagsterHome, *options: str, output: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A run host of the test's own, once it is the one that launchers reach, and a connection to it."""
    folder = home.folder / LAUNCHER_FOLDER
    process = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops.launcher.run_host", "--folder", str(folder), *options],
        env=environment_for_child({}),
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        wait_until(lambda: answering_pid(folder) == process.pid, seconds=120, what="the run host")
        with call(folder) as caller:
            # It is needed until the test is ready.
            yield process, caller
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def answering_pid(folder: Path) -> int | None:
    """Who listens in the folder, by the kernel's word."""
    try:
        with call(folder) as caller:
            return listening_pid(caller)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


@contextmanager
def frozen(host: psutil.Process) -> Iterator[None]:
    """Stop it where it stands, so that it answers nobody while the kernel takes its calls; nothing is left of it."""
    host.suspend()
    try:
        wait_until(lambda: host.status() == psutil.STATUS_STOPPED, what="the run host to stand still")
        yield
        wait_until(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE, what="the frozen one's end")
    finally:
        with suppress(psutil.NoSuchProcess):
            host.kill()


def status(launches: QuickLaunches, run_id: str) -> DagsterRunStatus:
    run = launches.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("let_go", [True, False], ids=["a run that finishes", "a run that does not"])
def test_a_run_host_that_is_told_to_stop_lets_runs_finish_for_a_time_and_interrupts_them_then(
    dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks, let_go: bool
) -> None:
    with run_host(dagster_home, "--keep", "--run-seconds", "120" if let_go else "0.5") as (host, _):
        run_id = launches.launched("leave_a_mark", marks.config(hold=True))
        worker = psutil.Process(marks.of(run_id).pid)
        assert worker.ppid() == host.pid
        assert os.getpgid(worker.pid) == worker.pid
        family = psutil.Process(host.pid).children(recursive=True)
        host.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_answered(dagster_home.folder / LAUNCHER_FOLDER), what="the end of new runs")
        if let_go:
            marks.let_go()
        assert host.wait(120) == 0
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert status(launches, run_id) is (DagsterRunStatus.SUCCESS if let_go else DagsterRunStatus.FAILURE)
    assert marks.interruptions == ([] if let_go else ["DagsterExecutionInterruptedError"])


def test_a_run_outlives_the_workers_run_host(dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks) -> None:
    (program,) = run_host_of_the_worker(environment_for_child({}), dagster_home.folder)
    kept = KeptRun(program, lambda _name, _line: None)
    try:
        wait_until(program.is_ready, seconds=120, what="the run host")
        run_id = launches.launched("leave_a_mark", marks.config(hold=True))
        host = psutil.Process(marks.of(run_id).pid).ppid()
        assert psutil.Process(host).ppid() == kept.pid
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(host), what="the keeper to have noticed")
        marks.let_go()
        wait_until(lambda: status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
        assert marks.interruptions == []
    finally:
        kept.stop()


def test_a_run_host_launches_though_nobody_takes_what_it_prints(
    dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks, tmp_path: Path
) -> None:
    code = tmp_path / "quick_jobs.py"
    reader, writer = os.pipe()
    os.close(reader)
    with run_host(dagster_home, "--keep", output=writer):
        os.close(writer)
        for edit in ("VERSION = 'edited'\n", "VERSION = 'edited again'\n", UNFIT):
            marks.of(launches.launched("leave_a_mark", marks.config()))
            # Each is something to print about, and so are the runs after the last, which are started cold.
            code.write_text(code.read_text() + edit)
        runs = [launches.launched("leave_a_mark", marks.config()) for _ in range(2)]
        assert [marks.of(run_id).version for run_id in runs] == ["edited again"] * 2
        for run_id in runs:
            wait_until(lambda run_id=run_id: status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)


def test_a_run_whose_start_can_not_be_written_to_its_history_is_executed(
    launches: QuickLaunches, marks: Marks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise DagsterPostgresException("too many retries for DB connection")

    with monkeypatch.context() as away:
        away.setattr(launches.instance, "report_engine_event", refuse)
        run_id = launches.launched("leave_a_mark", marks.config())
    wait_until(lambda: status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
    assert f"Run {run_id}: process {marks.of(run_id).pid} was forked from a warm process" in caplog.text


def test_two_processes_for_one_run_execute_it_once(
    dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks
) -> None:
    run_id = launches.created("leave_a_mark", marks.config(hold=True))
    folder = dagster_home.folder / LAUNCHER_FOLDER
    make_folder(folder)
    command = [sys.executable, "-m", "seedtrust_ops.launcher.run_worker", "--folder", str(folder)]
    arguments = launches.arguments("leave_a_mark", run_id)
    workers = [
        subprocess.Popen([*command, arguments], stderr=subprocess.PIPE, text=True, env=environment_for_child({}))
        for _ in range(2)
    ]
    wait_until(lambda: [one for one in workers if one.poll() is not None], seconds=120, what="one to give way")
    (gave_way,) = [one for one in workers if one.poll() is not None]
    assert gave_way.returncode == 0
    marks.of(run_id)
    marks.let_go()
    said = [worker.communicate(timeout=120)[1] for worker in workers]
    assert len([text for text in said if "has a worker already" in text]) == 1
    assert marks.of(run_id).run_id == run_id
    assert status(launches, run_id) is DagsterRunStatus.SUCCESS


def test_a_run_host_of_nobody_goes_when_its_launchers_and_runs_are_gone(
    dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks
) -> None:
    folder = dagster_home.folder / LAUNCHER_FOLDER
    with run_host(dagster_home, "--linger-seconds", "5") as (host, caller):
        run_id = launches.launched("leave_a_mark", marks.config(hold=True))
        marks.of(run_id)
        family = psutil.Process(host.pid).children(recursive=True)
        launches.instance.run_launcher.dispose()
        caller.close()
        with pytest.raises(subprocess.TimeoutExpired):
            # Its run needs it.
            host.wait(7)
        marks.let_go()
        assert host.wait(120) == 0
    wait_until(lambda: not [one for one in family if one.is_running()], seconds=120, what="the end of all")
    assert status(launches, run_id) is DagsterRunStatus.SUCCESS
    assert sorted(path.name for path in folder.iterdir()) == ["run_host.lock", "runs.lock"]


def test_a_kept_run_host_takes_over_and_runs_of_the_first_finish(
    dagster_home: DagsterHome, launches: QuickLaunches, marks: Marks
) -> None:
    first = launches.launched("leave_a_mark", marks.config(hold=True))
    old = psutil.Process(marks.of(first).pid).parent()
    assert old is not None
    with run_host(dagster_home, "--keep") as (host, _):
        second = launches.launched("leave_a_mark", marks.config(hold=True))
        assert psutil.Process(marks.of(second).pid).ppid() == host.pid
        marks.let_go()
        for run_id in (first, second):
            wait_until(lambda run_id=run_id: status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
        wait_until(lambda: not old.is_running(), what="the end of the first run host")


def test_a_frozen_run_host_is_replaced_and_costs_and_doubles_no_run(
    launches: QuickLaunches, marks: Marks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = launches.launched("leave_a_mark", marks.config(hold=True))
    host = psutil.Process(marks.of(first).pid).parent()
    assert host is not None
    # For this process alone, and longer than a process that lives may stand still.
    monkeypatch.setattr(host_client, "TURN_SECONDS", 3.0)
    with frozen(host):
        second = launches.launched("leave_a_mark", marks.config(hold=True))
    assert psutil.Process(marks.of(second).pid).parent() != host
    marks.let_go()
    for run_id in (first, second):
        wait_until(lambda run_id=run_id: status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
    assert [mark.run_id for mark in marks.left()] == [first, second]
    assert f"the run host (process {host.pid}) said nothing" in caplog.text


def test_a_kept_run_host_takes_over_from_a_frozen_one(
    dagster_home: DagsterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_client, "TURN_SECONDS", 3.0)
    with run_host(dagster_home) as (host, _), frozen(psutil.Process(host.pid)):
        lock = take_over(dagster_home.folder / LAUNCHER_FOLDER, keep=True)
        assert lock is not None
        lock.close()


def test_a_folder_with_a_long_name_serves_and_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    make_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not is_answered(folder)
    with listen(folder) as listener, call(folder) as caller:
        caller.sendall(b"x")
        answering, _ = listener.accept()
        with answering:
            assert answering.recv(1) == b"x"


def test_a_run_that_no_process_can_be_started_for_is_refused_in_a_sentence(tmp_path: Path) -> None:
    caller = RunHostClient(tmp_path / "launcher")
    code = CodeToLoad(python=str(tmp_path / "no-python"), module=None, code_folder=None)
    try:
        with pytest.raises(RunNotStarted, match="run-1 was not started: no process could be started"):
            caller.launch(LaunchOrder("run-1", "{}", code, {}, str(tmp_path)))
    finally:
        caller.hang_up()
