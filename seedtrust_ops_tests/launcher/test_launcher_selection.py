"""Runs launched by the web server or the command line are forked from the zygote, as the daemon's are."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from dagster import DagsterRunStatus
from dagster._core.definitions.repository_definition.valid_definitions import SINGLETON_REPOSITORY_NAME

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, is_listening
from seedtrust_ops_tests.launcher.quick_daemon import QuickDaemon
from seedtrust_ops_tests.launcher.worker_reports import RunReports
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)
LAUNCH = """
mutation ($selector: JobOrPipelineSelector!, $config: RunConfigData) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


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


@pytest.mark.parametrize("launch", [launch_from_web_server, launch_from_command_line])
def test_run_is_forked_from_every_launcher(daemon: QuickDaemon, tmp_path: Path, launch: Any) -> None:
    reports = RunReports(tmp_path)
    run_id = launch(daemon, reports.config())
    daemon.wait_for(run_id, DagsterRunStatus.SUCCESS)
    assert "Warm start" in daemon.start_event(run_id)
    assert reports.wait_for(run_id).run_id == run_id
