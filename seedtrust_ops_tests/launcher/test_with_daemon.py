"""Runs on a real daemon: forked from a warm process, canceled, killed, and none lost or doubled whatever dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon
from seedtrust_ops_tests.launcher.run_reports import Marks
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)
FORKED = "was forked from a warm process"
COLD = "was started cold"


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Marks]:
    marks = Marks(tmp_path)
    yield marks
    # Where the test failed, a run may still be held.
    marks.let_go()


def submitted(daemon: QuickDaemon, marks: Marks, *, hold: bool = False) -> str:
    (run_id,) = daemon.submit("leave_a_mark", run_config=marks.config(hold=hold))
    return run_id


def finished(daemon: QuickDaemon, marks: Marks) -> str:
    """A run that was submitted and has succeeded."""
    run_id = submitted(daemon, marks)
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    return run_id


def change_code(daemon: QuickDaemon, old: str, new: str) -> None:
    file = daemon.code / "quick_jobs.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def output_of(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str]:
    (captured,) = instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED)
    assert captured.dagster_event is not None
    key = [run_id, "compute_logs", captured.dagster_event.logs_captured_data.file_key]
    told = instance.compute_log_manager.get_log_data(key)
    return (told.stdout or b"").decode(), (told.stderr or b"").decode()


def mirrored(daemon: QuickDaemon, sessions: sessionmaker[Session], run_id: str) -> str:
    """The run's status in JobRun after a look of the mirror's."""
    mirror_changed_runs(daemon.instance, DatabaseResource(), None)
    with sessions() as session:
        return session.scalars(select(JobRun.status).where(JobRun.run_id == run_id)).one()


def test_forked_runs_are_like_any_others(daemon: QuickDaemon, marks: Marks) -> None:
    runs = [finished(daemon, marks), finished(daemon, marks)]
    first, second = (marks.of(run_id) for run_id in runs)
    for run_id, mark in zip(runs, (first, second), strict=True):
        assert FORKED in daemon.how_started(run_id)
        assert daemon.worker(run_id).pid == mark.pid
        assert (mark.variable, mark.folder) == ("from the daemon", str(daemon.code))
        stdout, stderr = output_of(daemon.instance, run_id)
        assert "to standard output" in stdout
        assert "to standard error" in stderr
    assert first.random != second.random
    assert len(daemon.zygotes) == 1


def test_canceling_interrupts_a_running_op(daemon: QuickDaemon, marks: Marks) -> None:
    run_id = submitted(daemon, marks, hold=True)
    pid = marks.of(run_id).pid
    assert daemon.instance.run_launcher.terminate(run_id)
    daemon.wait_for(run_id, DagsterRunStatus.CANCELED)
    assert marks.interruptions == ["DagsterExecutionInterruptedError"]
    wait_until(lambda: not psutil.pid_exists(pid), what="the end of the worker")


def test_a_run_canceled_while_it_starts_executes_nothing(daemon: QuickDaemon, marks: Marks) -> None:
    finished(daemon, marks)
    (zygote,) = daemon.zygotes
    zygote.suspend()
    run_id = submitted(daemon, marks)
    daemon.wait_for(run_id, DagsterRunStatus.STARTING)
    assert daemon.instance.run_launcher.terminate(run_id)
    zygote.resume()
    daemon.wait_for(run_id, DagsterRunStatus.CANCELED)
    assert run_id not in [mark.run_id for mark in marks.left()]


def test_a_zygote_killed_while_forking_costs_no_run_and_doubles_none(daemon: QuickDaemon, marks: Marks) -> None:
    finished(daemon, marks)
    (zygote,) = daemon.zygotes
    zygote.suspend()
    run_id = submitted(daemon, marks)
    daemon.wait_for(run_id, DagsterRunStatus.STARTING)
    zygote.kill()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert COLD in daemon.how_started(run_id)
    assert marks.of(run_id).run_id == run_id
    assert FORKED in daemon.how_started(finished(daemon, marks))
    assert daemon.zygotes != [zygote]


def test_a_run_whose_worker_is_killed_fails(daemon: QuickDaemon, marks: Marks) -> None:
    run_id = submitted(daemon, marks, hold=True)
    marks.of(run_id)
    os.kill(daemon.worker(run_id).pid, signal.SIGKILL)
    daemon.wait_for(run_id, DagsterRunStatus.FAILURE)
    assert any("is gone" in text for text in daemon.said_of(run_id))


def test_runs_in_flight_outlive_daemon_and_code_server_are_mirrored_and_the_zygote_stays(
    daemon: QuickDaemon, marks: Marks, sessions: sessionmaker[Session], request: pytest.FixtureRequest
) -> None:
    run_id = submitted(daemon, marks, hold=True)
    marks.of(run_id)
    before = daemon.run_host, daemon.zygotes
    daemon.kill("daemon")
    daemon.kill("code-server")
    daemon.start_all()
    assert FORKED in daemon.how_started(finished(daemon, Marks(daemon.code)))
    assert (daemon.run_host, daemon.zygotes) == before
    assert daemon.status(run_id) is DagsterRunStatus.STARTED
    # Not before the daemon is started again: a zygote is of one environment.
    request.getfixturevalue("bank_environment")
    assert mirrored(daemon, sessions, run_id) == "STARTED"
    marks.let_go()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert mirrored(daemon, sessions, run_id) == "COMPLETED"


def test_runs_outlive_their_run_host_and_the_next_launch_finds_another(daemon: QuickDaemon, marks: Marks) -> None:
    run_id = submitted(daemon, marks, hold=True)
    marks.of(run_id)
    host = daemon.run_host
    host.kill()
    wait_until(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE, what="the run host's end")
    assert FORKED in daemon.how_started(finished(daemon, Marks(daemon.code)))
    assert daemon.run_host != host
    marks.let_go()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)


def test_changed_code_is_what_the_next_run_executes(daemon: QuickDaemon, marks: Marks) -> None:
    old = submitted(daemon, marks, hold=True)
    assert marks.of(old).version == "first"
    zygotes = daemon.zygotes
    change_code(daemon, '"first"', '"second"')
    marks.let_go()
    new = finished(daemon, marks)
    assert marks.of(new).version == "second"
    assert FORKED in daemon.how_started(new)
    daemon.wait_for(old, DagsterRunStatus.SUCCESS)
    wait_until(lambda: len(daemon.zygotes) == 1, what="the end of the old zygote")
    assert daemon.zygotes != zygotes


def test_code_that_can_not_be_forked_is_started_cold_and_says_why(daemon: QuickDaemon, marks: Marks) -> None:
    harmless = "import dagster as dg\n"
    threads = (
        "import threading\n\nthreading.Thread(target=time.sleep, args=(1000,), name='idler', daemon=True).start()\n"
    )
    change_code(daemon, harmless, harmless + threads)
    run_id = finished(daemon, marks)
    assert "idler" in daemon.how_started(run_id)
    assert COLD in daemon.how_started(run_id)
    change_code(daemon, threads, "")
