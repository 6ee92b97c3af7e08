"""The run host never loses or doubles a run, can be replaced while runs execute, and exits when nobody needs it."""

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
from dagster._core.code_pointer import FileCodePointer
from dagster_postgres.utils import DagsterPostgresException

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.launcher import host_client
from seedtrust_ops.launcher.host_client import (
    LAUNCHER_FOLDER,
    RunHostClient,
    RunNotStarted,
    connect,
    get_listener_pid,
    is_serving,
)
from seedtrust_ops.launcher.private_folder import make_private_folder
from seedtrust_ops.launcher.run_host import listen, take_over
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchRequest
from seedtrust_ops.run_admission import RunRefused
from seedtrust_ops.supervisor.program import GuardedProcess
from seedtrust_ops.supervisor.worker_stack import build_run_host
from seedtrust_ops_tests.launcher.quick_daemon import use_quick_jobs
from seedtrust_ops_tests.launcher.quick_launches import QuickLaunches, quick_launches
from seedtrust_ops_tests.launcher.worker_reports import RunReports
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance
from seedtrust_ops_tests.support.tiers import Resource, provides
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)
STARTS_A_THREAD = """
import threading
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""
"""Code that cannot be forked."""


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[RunReports]:
    reports = RunReports(tmp_path)
    yield reports
    # If the test failed, a run may still be held.
    reports.release()


@pytest.fixture
def quick_instance(dagster_home: DagsterHome) -> Iterator[dg.DagsterInstance]:
    use_quick_jobs(dagster_home)
    with open_instance(dagster_home) as instance:
        yield instance


@pytest.fixture
@provides(Resource.DAEMON)
def launches(quick_instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[QuickLaunches]:
    with quick_launches(quick_instance, tmp_path) as launches:
        yield launches


@contextmanager
def run_host(
    home: DagsterHome, *options: str, output: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Start a run host; yield it, once it is the one that launchers reach, and a connection to it."""
    folder = home.folder / LAUNCHER_FOLDER
    process = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops.launcher.run_host", "--folder", str(folder), *options],
        env=environment_for_child({}),
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        wait_until(lambda: find_listener_pid(folder) == process.pid, seconds=120, what="the run host")
        with connect(folder) as connection:
            # The open connection keeps it needed until the test is ready.
            yield process, connection
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def find_listener_pid(folder: Path) -> int | None:
    """Return the pid of the process that listens in the folder, as the kernel reports it."""
    try:
        with connect(folder) as connection:
            return get_listener_pid(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


@contextmanager
def frozen(host: psutil.Process) -> Iterator[None]:
    """Suspend the run host, so that connections succeed but get no response; wait until it was killed."""
    host.suspend()
    try:
        wait_until(lambda: host.status() == psutil.STATUS_STOPPED, what="the run host to be suspended")
        yield
        wait_until(
            lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE, what="the frozen run host to exit"
        )
    finally:
        with suppress(psutil.NoSuchProcess):
            host.kill()


def get_status(launches: QuickLaunches, run_id: str) -> DagsterRunStatus:
    run = launches.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("finishes", [True, False], ids=["run finishes in time", "run does not finish"])
def test_shutdown_waits_for_runs_and_then_interrupts_them(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports, finishes: bool
) -> None:
    with run_host(dagster_home, "--keep", "--run-seconds", "120" if finishes else "0.5") as (host, _):
        run_id = launches.launch("report_run", reports.config(hold=True))
        worker = psutil.Process(reports.wait_for(run_id).pid)
        assert worker.ppid() == host.pid
        assert os.getpgid(worker.pid) == worker.pid
        children = psutil.Process(host.pid).children(recursive=True)
        host.send_signal(signal.SIGTERM)
        wait_until(
            lambda: not is_serving(dagster_home.folder / LAUNCHER_FOLDER), what="the run host to accept no more runs"
        )
        if finishes:
            reports.release()
        assert host.wait(120) == 0
    assert not [process for process in children if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert get_status(launches, run_id) is (DagsterRunStatus.SUCCESS if finishes else DagsterRunStatus.FAILURE)
    assert reports.interruptions == ([] if finishes else ["DagsterExecutionInterruptedError"])


def test_run_survives_crash_of_the_workers_run_host(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports
) -> None:
    (program,) = build_run_host(environment_for_child({}), dagster_home.folder)
    guarded = GuardedProcess(program, lambda _name, _line: None)
    try:
        wait_until(program.is_ready, seconds=120, what="the run host")
        run_id = launches.launch("report_run", reports.config(hold=True))
        host = psutil.Process(reports.wait_for(run_id).pid).ppid()
        assert psutil.Process(host).ppid() == guarded.pid
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(host), what="the guard to reap the run host")
        reports.release()
        wait_until(lambda: get_status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
        assert reports.interruptions == []
    finally:
        guarded.stop()


def test_run_host_launches_runs_if_nothing_reads_its_output(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports, tmp_path: Path
) -> None:
    code = tmp_path / "quick_jobs.py"
    reader, writer = os.pipe()
    os.close(reader)
    with run_host(dagster_home, "--keep", output=writer):
        os.close(writer)
        for edit in ("VERSION = 'edited'\n", "VERSION = 'edited again'\n", STARTS_A_THREAD):
            reports.wait_for(launches.launch("report_run", reports.config()))
            # The run host prints a line about each edit, and about each cold start after the last one.
            code.write_text(code.read_text() + edit)
        runs = [launches.launch("report_run", reports.config()) for _ in range(2)]
        assert [reports.wait_for(run_id).version for run_id in runs] == ["edited again"] * 2
        for run_id in runs:
            wait_until(lambda run_id=run_id: get_status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)


def test_run_executes_if_its_start_event_cannot_be_written(
    launches: QuickLaunches, reports: RunReports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise DagsterPostgresException("too many retries for DB connection")

    with monkeypatch.context() as patch:
        patch.setattr(launches.instance, "report_engine_event", refuse)
        run_id = launches.launch("report_run", reports.config())
    wait_until(lambda: get_status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
    assert f"Run {run_id}: Warm start: process {reports.wait_for(run_id).pid} was forked" in caplog.text


def test_run_with_two_workers_executes_once(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports
) -> None:
    run_id = launches.create("report_run", reports.config(hold=True))
    folder = dagster_home.folder / LAUNCHER_FOLDER
    make_private_folder(folder)
    command = [sys.executable, "-m", "seedtrust_ops.launcher.run_worker", "--folder", str(folder)]
    arguments = launches.arguments("report_run", run_id)
    workers = [
        subprocess.Popen([*command, arguments], stderr=subprocess.PIPE, text=True, env=environment_for_child({}))
        for _ in range(2)
    ]
    wait_until(
        lambda: [process for process in workers if process.poll() is not None], seconds=120, what="one worker to exit"
    )
    (exited,) = [process for process in workers if process.poll() is not None]
    assert exited.returncode == 0
    reports.wait_for(run_id)
    reports.release()
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert len([text for text in errors if "already has a worker" in text]) == 1
    assert reports.wait_for(run_id).run_id == run_id
    assert get_status(launches, run_id) is DagsterRunStatus.SUCCESS


def test_run_that_names_other_code_is_neither_launched_nor_executed(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports, tmp_path: Path
) -> None:
    other_code = tmp_path / "other_code.py"
    other_code.write_text(
        f"open({str(tmp_path / 'executed')!r}, 'w')\nimport quick_jobs\ndefs = quick_jobs.definitions\n"
    )
    run_id = launches.create("report_run", reports.config(), code_pointer=FileCodePointer(str(other_code), "defs"))
    with pytest.raises(RunRefused, match="names other code"):
        launches.instance.launch_run(run_id, workspace=None)  # type: ignore[arg-type]
    # Somebody can also write into the database after the launch.
    folder = dagster_home.folder / LAUNCHER_FOLDER
    make_private_folder(folder)
    worker = subprocess.run(
        [
            *(sys.executable, "-m", "seedtrust_ops.launcher.run_worker", "--folder", str(folder)),
            launches.arguments("report_run", run_id),
        ],
        capture_output=True,
        text=True,
        env=environment_for_child({}),
        timeout=120,
    )
    assert worker.returncode != 0
    assert f"names other code for run {run_id} than quick_jobs:definitions" in worker.stderr
    assert not (tmp_path / "executed").exists()


def test_detached_run_host_exits_when_launchers_and_runs_are_gone(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports
) -> None:
    folder = dagster_home.folder / LAUNCHER_FOLDER
    with run_host(dagster_home, "--idle-seconds", "5") as (host, connection):
        run_id = launches.launch("report_run", reports.config(hold=True))
        reports.wait_for(run_id)
        children = psutil.Process(host.pid).children(recursive=True)
        launches.instance.run_launcher.dispose()
        connection.close()
        with pytest.raises(subprocess.TimeoutExpired):
            # The run keeps it needed.
            host.wait(7)
        reports.release()
        assert host.wait(120) == 0
    wait_until(
        lambda: not [process for process in children if process.is_running()], seconds=120, what="all processes to exit"
    )
    assert get_status(launches, run_id) is DagsterRunStatus.SUCCESS
    assert sorted(path.name for path in folder.iterdir()) == ["run_host.lock", "runs.lock"]


def test_kept_run_host_takes_over_while_old_runs_finish(
    dagster_home: DagsterHome, launches: QuickLaunches, reports: RunReports
) -> None:
    first = launches.launch("report_run", reports.config(hold=True))
    old = psutil.Process(reports.wait_for(first).pid).parent()
    assert old is not None
    with run_host(dagster_home, "--keep") as (host, _):
        second = launches.launch("report_run", reports.config(hold=True))
        assert psutil.Process(reports.wait_for(second).pid).ppid() == host.pid
        reports.release()
        for run_id in (first, second):
            wait_until(lambda run_id=run_id: get_status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
        wait_until(lambda: not old.is_running(), what="the first run host to exit")


def test_frozen_run_host_is_replaced_without_lost_or_doubled_runs(
    launches: QuickLaunches, reports: RunReports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = launches.launch("report_run", reports.config(hold=True))
    host = psutil.Process(reports.wait_for(first).pid).parent()
    assert host is not None
    # Only for this process, and longer than a healthy process can be suspended.
    monkeypatch.setattr(host_client, "PROBE_SECONDS", 3.0)
    with frozen(host):
        second = launches.launch("report_run", reports.config(hold=True))
    assert psutil.Process(reports.wait_for(second).pid).parent() != host
    reports.release()
    for run_id in (first, second):
        wait_until(lambda run_id=run_id: get_status(launches, run_id) is DagsterRunStatus.SUCCESS, seconds=120)
    assert [report.run_id for report in reports.read_all()] == [first, second]
    assert f"the run host (process {host.pid}) did not respond" in caplog.text


@pytest.mark.usefixtures("daemon_processes")
def test_kept_run_host_takes_over_from_a_frozen_one(dagster_home: DagsterHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_client, "PROBE_SECONDS", 3.0)
    with run_host(dagster_home) as (host, _), frozen(psutil.Process(host.pid)):
        lock = take_over(dagster_home.folder / LAUNCHER_FOLDER, keep=True)
        assert lock is not None
        lock.close()


def test_folder_with_a_long_name_serves_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not is_serving(folder)
    with listen(folder) as listener, connect(folder) as connection:
        connection.sendall(b"x")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


@pytest.mark.usefixtures("daemon_processes")
def test_run_without_a_process_is_refused_with_the_reason(tmp_path: Path) -> None:
    client = RunHostClient(tmp_path / "launcher")
    code = CodeToLoad(python=str(tmp_path / "no-python"), module=None, code_folder=None)
    try:
        with pytest.raises(RunNotStarted, match="run-1 was not started: no process could be started"):
            client.launch(LaunchRequest("run-1", "{}", code, {}, str(tmp_path)))
    finally:
        client.disconnect()
