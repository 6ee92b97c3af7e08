"""Runs on a real daemon, however they were launched: forked, canceled, killed, never lost or doubled by a crash."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
import pytest
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.definitions.repository_definition.valid_definitions import SINGLETON_REPOSITORY_NAME
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.run_cancellation import was_canceled_by_person
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, is_listening
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon
from seedtrust_ops_tests.launcher.worker_reports import RunReports
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)
WARM_START = "Warm start"
COLD_START = "Cold start"
LAUNCH = """
mutation ($selector: JobOrPipelineSelector!, $config: RunConfigData) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[RunReports]:
    reports = RunReports(tmp_path)
    yield reports
    # If the test failed, a run may still be held.
    reports.release()


def submit_run(daemon: QuickDaemon, reports: RunReports, *, hold: bool = False) -> str:
    """Queue a run; return its id."""
    (run_id,) = daemon.submit("report_run", run_config=reports.config(hold=hold))
    return run_id


def execute_run(daemon: QuickDaemon, reports: RunReports) -> str:
    """Queue a run and wait for its success; return its id."""
    run_id = submit_run(daemon, reports)
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    return run_id


def launch_from_web_server(daemon: QuickDaemon, config: dict[str, Any]) -> str:
    """Launch as the launchpad of the web UI does; return the run's id."""
    daemon.start("web-server")
    wait_until(lambda: is_listening(daemon.web_port), seconds=240, what="the web server")
    selector = {
        "repositoryLocationName": "quick",
        "repositoryName": SINGLETON_REPOSITORY_NAME,
        "jobName": "report_run",
    }
    response = httpx.post(
        f"http://{LOOPBACK}:{daemon.web_port}/graphql",
        json={"query": LAUNCH, "variables": {"selector": selector, "config": config}},
        timeout=120,
        trust_env=False,
    ).json()
    launched = response["data"]["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", response
    return str(launched["run"]["runId"])


def launch_from_command_line(daemon: QuickDaemon, config: dict[str, Any]) -> str:
    """Launch by `dagster job launch`; return the run's id."""
    known = {record.dagster_run.run_id for record in daemon.instance.get_run_records()}
    arguments = ("-w", str(daemon.workspace), "-l", "quick", "-j", "report_run", "--config-json", json.dumps(config))
    subprocess.run(
        [sys.executable, "-m", "dagster", "job", "launch", *arguments],
        cwd=daemon.code,
        env=environment_for_child(daemon.home.variables),
        check=True,
        capture_output=True,
        timeout=400,
    )
    (run_id,) = {record.dagster_run.run_id for record in daemon.instance.get_run_records()} - known
    return run_id


def change_code(daemon: QuickDaemon, old: str, new: str) -> None:
    file = daemon.code / "quick_jobs.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def read_output(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str]:
    (captured,) = instance.all_logs(run_id, of_type=DagsterEventType.LOGS_CAPTURED)
    assert captured.dagster_event is not None
    key = [run_id, "compute_logs", captured.dagster_event.logs_captured_data.file_key]
    output = instance.compute_log_manager.get_log_data(key)
    return (output.stdout or b"").decode(), (output.stderr or b"").decode()


def mirror_status(daemon: QuickDaemon, sessions: sessionmaker[Session], run_id: str) -> str:
    """Mirror changed runs once; return the run's status in JobRun."""
    mirror_changed_runs(daemon.instance, DatabaseResource(), None)
    with sessions() as session:
        return session.scalars(select(JobRun.status).where(JobRun.run_id == run_id)).one()


def test_forked_runs_behave_like_other_runs(daemon: QuickDaemon, reports: RunReports) -> None:
    runs = [execute_run(daemon, reports), execute_run(daemon, reports)]
    first, second = (reports.wait_for(run_id) for run_id in runs)
    for run_id, report in zip(runs, (first, second), strict=True):
        assert WARM_START in daemon.start_event(run_id)
        assert daemon.worker(run_id).pid == report.pid
        assert (report.variable, report.folder) == ("from the daemon", str(daemon.code))
        stdout, stderr = read_output(daemon.instance, run_id)
        assert "to standard output" in stdout
        assert "to standard error" in stderr
    assert first.random != second.random
    assert len(daemon.zygotes) == 1


@pytest.mark.parametrize("launch", [launch_from_web_server, launch_from_command_line])
def test_run_is_forked_from_every_launcher(
    daemon: QuickDaemon, reports: RunReports, launch: Callable[[QuickDaemon, dict[str, Any]], str]
) -> None:
    run_id = launch(daemon, reports.config())
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert WARM_START in daemon.start_event(run_id)
    assert reports.wait_for(run_id).run_id == run_id


def test_cancellation_interrupts_a_running_op(daemon: QuickDaemon, reports: RunReports) -> None:
    run_id = submit_run(daemon, reports, hold=True)
    pid = reports.wait_for(run_id).pid
    assert daemon.instance.run_launcher.terminate(run_id)
    daemon.wait_for(run_id, DagsterRunStatus.CANCELED)
    assert was_canceled_by_person(daemon.instance, run_id)
    assert reports.interruptions == ["DagsterExecutionInterruptedError"]
    wait_until(lambda: not psutil.pid_exists(pid), what="the worker to exit")


def test_run_canceled_while_it_starts_executes_nothing(daemon: QuickDaemon, reports: RunReports) -> None:
    execute_run(daemon, reports)
    (zygote,) = daemon.zygotes
    zygote.suspend()
    run_id = submit_run(daemon, reports)
    daemon.wait_for(run_id, DagsterRunStatus.STARTING)
    assert daemon.instance.run_launcher.terminate(run_id)
    zygote.resume()
    daemon.wait_for(run_id, DagsterRunStatus.CANCELED)
    assert run_id not in [report.run_id for report in reports.read_all()]


def test_zygote_killed_while_forking_loses_and_doubles_no_run(daemon: QuickDaemon, reports: RunReports) -> None:
    execute_run(daemon, reports)
    (zygote,) = daemon.zygotes
    zygote.suspend()
    run_id = submit_run(daemon, reports)
    daemon.wait_for(run_id, DagsterRunStatus.STARTING)
    zygote.kill()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert COLD_START in daemon.start_event(run_id)
    assert reports.wait_for(run_id).run_id == run_id
    assert WARM_START in daemon.start_event(execute_run(daemon, reports))
    assert daemon.zygotes != [zygote]


def test_run_whose_worker_is_killed_fails(daemon: QuickDaemon, reports: RunReports) -> None:
    run_id = submit_run(daemon, reports, hold=True)
    reports.wait_for(run_id)
    os.kill(daemon.worker(run_id).pid, signal.SIGKILL)
    daemon.wait_for(run_id, DagsterRunStatus.FAILURE)
    assert any("crashed" in text for text in daemon.event_messages(run_id))
    assert not was_canceled_by_person(daemon.instance, run_id)


def test_run_and_zygote_survive_kill_of_daemon_and_code_server(
    daemon: QuickDaemon, reports: RunReports, sessions: sessionmaker[Session], request: pytest.FixtureRequest
) -> None:
    run_id = submit_run(daemon, reports, hold=True)
    reports.wait_for(run_id)
    before = daemon.run_host, daemon.zygotes
    daemon.kill("daemon")
    daemon.kill("code-server")
    daemon.start_all()
    assert WARM_START in daemon.start_event(execute_run(daemon, RunReports(daemon.code)))
    assert (daemon.run_host, daemon.zygotes) == before
    assert daemon.status(run_id) is DagsterRunStatus.STARTED
    # Only after the daemon has restarted: a zygote serves one environment.
    request.getfixturevalue("bank_environment")
    assert mirror_status(daemon, sessions, run_id) == "STARTED"
    reports.release()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert mirror_status(daemon, sessions, run_id) == "COMPLETED"


def test_run_survives_run_host_and_next_launch_starts_another(daemon: QuickDaemon, reports: RunReports) -> None:
    run_id = submit_run(daemon, reports, hold=True)
    reports.wait_for(run_id)
    host = daemon.run_host
    host.kill()
    wait_until(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE, what="the run host to exit")
    assert WARM_START in daemon.start_event(execute_run(daemon, RunReports(daemon.code)))
    assert daemon.run_host != host
    reports.release()
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)


def test_next_run_executes_changed_code(daemon: QuickDaemon, reports: RunReports) -> None:
    old = submit_run(daemon, reports, hold=True)
    assert reports.wait_for(old).version == "first"
    zygotes = daemon.zygotes
    change_code(daemon, '"first"', '"second"')
    reports.release()
    new = execute_run(daemon, reports)
    assert reports.wait_for(new).version == "second"
    assert WARM_START in daemon.start_event(new)
    daemon.wait_for(old, DagsterRunStatus.SUCCESS)
    wait_until(lambda: len(daemon.zygotes) == 1, what="the old zygote to exit")
    assert daemon.zygotes != zygotes


def test_code_that_cannot_be_forked_starts_cold_and_says_why(daemon: QuickDaemon, reports: RunReports) -> None:
    harmless = "import dagster as dg\n"
    threads = (
        "import threading\n\nthreading.Thread(target=time.sleep, args=(1000,), name='idler', daemon=True).start()\n"
    )
    change_code(daemon, harmless, harmless + threads)
    run_id = execute_run(daemon, reports)
    assert "idler" in daemon.start_event(run_id)
    assert COLD_START in daemon.start_event(run_id)
    change_code(daemon, threads, "")
