"""Jobs run with Dagster's own command line, in processes that get only the variables they need.

Both with the project's dagster.yaml as DAGSTER_HOME and in a bare shell.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.process_huntington_batch import NAME
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.jobs.job_runner import DAGSTER, dagster, execute
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance
from seedtrust_ops_tests.support.factories import Company

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working directory of the processes, outside the project."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return elsewhere


def test_dagster_home_run_sends_the_batch_and_is_mirrored(
    company: Company, bank_environment: dict[str, str], dagster_home: DagsterHome, folder: Path
) -> None:
    batch_id = company.batch([30_000])
    done = execute(batch_id, variables=bank_environment | dagster_home.variables, folder=folder)
    assert done.returncode == 0, done.stderr
    assert f"Batch {batch_id} is completed: 1 completed." in done.stderr
    assert company.batch_row(batch_id).status == "completed"
    with open_instance(dagster_home) as instance:
        mirror_changed_runs(instance, DatabaseResource(), None)
    with company.sessions() as session:
        run = session.scalars(select(JobRun)).one()
    assert (run.task_name, run.status, run.arguments) == (NAME, "COMPLETED", {"batch_id": batch_id})
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.queued_at <= run.started_at <= run.finished_at
    assert list(folder.iterdir()) == [folder / f"batch-{batch_id}.yaml"]


@pytest.mark.usefixtures("child_processes")
def test_bare_shell_sends_a_batch_and_explains_an_unknown_one(
    company: Company, bank_environment: dict[str, str], folder: Path
) -> None:
    batch_id = company.batch([30_000])
    done = execute(batch_id, variables=bank_environment, folder=folder)
    assert done.returncode == 0, done.stderr
    assert company.batch_row(batch_id).status == "completed"
    failed = execute(4711, variables=bank_environment, folder=folder)
    assert failed.returncode != 0
    assert "There is no batch 4711. Nothing was sent. Check the batch id in the run's config." in failed.stderr
    assert "STEP_UP_FOR_RETRY" not in failed.stderr
    refused = execute(999_999_999_999_999_999_999, variables=bank_environment, folder=folder)
    assert refused.returncode != 0
    assert "batch_id is '999999999999999999999' and must be less than or equal to" in refused.stderr
    assert not [word for word in ("STEP_UP_FOR_RETRY", "22003", "ValidationError") if word in refused.stderr]


@pytest.mark.usefixtures("child_processes")
def test_definitions_are_valid_without_bank_and_key_variables(dagster_home: DagsterHome, folder: Path) -> None:
    validate = ("definitions", "validate", "-m", "seedtrust_ops.definitions")
    done = dagster(*validate, variables=dagster_home.variables, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("child_processes")
def test_dg_checks_lists_and_launches_from_the_project(dagster_home: DagsterHome, folder: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "DEV_ENV": "1", **dagster_home.variables}

    def dg_command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(DAGSTER.with_name("dg")), *arguments],
            env=variables,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    checked = dg_command("check", "defs")
    assert (checked.returncode, "All definitions loaded successfully." in checked.stdout) == (0, True), checked.stderr
    listed = dg_command("list", "defs", "--json")
    names = {one["name"] for one in json.loads(listed.stdout)["jobs"]}
    assert {"example", "process_huntington_batch"} <= names
    launched = dg_command("launch", "--job", "example")
    assert (launched.returncode, "Hello from SeedTrust Ops." in launched.stderr) == (0, True), launched.stderr


@pytest.mark.usefixtures("child_processes")
def test_automations_start_stopped_with_dev_env_except_the_mirror(
    folder: Path,
) -> None:
    show = (
        "from seedtrust_ops.definitions import defs;"
        "print({each.name: each.default_status.value for each in [*defs.sensors, *defs.schedules]})"
    )
    environment = {"DEV_ENV": "1", "PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", show],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    with_dev_env = ast.literal_eval(done.stdout)
    in_production = {
        automation.name: automation.default_status.value for automation in [*defs.sensors, *defs.schedules]
    }
    for statuses, expected in ((with_dev_env, "STOPPED"), (in_production, "RUNNING")):
        assert statuses["job_run_sensor"] == "RUNNING"
        assert statuses["huntington_batch_sensor"] == expected
        assert statuses["auto_heal_huntington_batches_schedule"] == expected
