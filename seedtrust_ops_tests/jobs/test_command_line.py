"""Jobs run with Dagster's own command line, in processes that get only the variables they need.

Both with the project's dagster.yaml as DAGSTER_HOME and in a bare shell.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.process_huntington_batch import NAME
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.announcement import announce
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


@pytest.fixture
def announced_sandbox(
    bank_environment: dict[str, str], dagster_home: DagsterHome, folder: Path
) -> Iterator[dict[str, str]]:
    """The variables of a sandbox that processes with home folder `folder` find; `folder` has a dagster.yaml."""
    shutil.copy(PROJECT / "dagster.yaml", folder)
    storage = {"DAGSTER_POSTGRES_URL": dagster_home.variables["DAGSTER_POSTGRES_URL"], "DEV_ENV": "1"}
    with announce(bank_environment | storage, folder / ".seedtrust" / "running"):
        yield bank_environment | storage


@pytest.mark.usefixtures("child_processes", "announced_sandbox")
def test_bare_shell_next_to_a_sandbox_sends_a_batch_there(
    company: Company, dagster_home: DagsterHome, folder: Path
) -> None:
    batch_id = company.batch([30_000])
    done = execute(batch_id, variables={}, folder=folder)
    assert done.returncode == 0, done.stderr
    assert company.batch_row(batch_id).status == "completed"
    # Not in a temporary store: the run is on the sandbox's pages.
    with open_instance(dagster_home) as instance:
        assert [run.job_name for run in instance.get_runs()] == [NAME]


@pytest.mark.usefixtures("child_processes", "announced_sandbox")
def test_dg_next_to_a_sandbox_launches_a_job_there(dagster_home: DagsterHome, folder: Path) -> None:
    launched = subprocess.run(
        [str(DAGSTER.with_name("dg")), "launch", "--job", "auto_heal_huntington_batches"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    with open_instance(dagster_home) as instance:
        assert [run.job_name for run in instance.get_runs()] == ["auto_heal_huntington_batches"]


@pytest.mark.usefixtures("child_processes")
def test_each_set_variable_keeps_a_process_away_from_the_sandbox(
    announced_sandbox: dict[str, str], folder: Path
) -> None:
    """One variable at a time in a real process, and what is set after its start, such as by an .env file."""
    script = """
import json, os, sys
from seedtrust_ops.config import get_settings, replace_environment
from seedtrust_ops.errors import ConfigurationError

home, decisive = os.environ["HOME"], json.loads(sys.argv[1])
def bank():
    try:
        return get_settings().huntington.api_url
    except ConfigurationError as error:
        return str(error)[:20]
found = {}
for name in decisive:
    replace_environment({"HOME": home, name: "1"})
    found[name] = bank()
replace_environment({"HOME": home})
get_settings()
os.environ["SEEDTRUST_DATABASE_URL"] = "postgresql://localhost/real"
found["later"] = [bank(), get_settings().databases.application_url.database]
print(json.dumps(found))
"""
    decisive = [*announced_sandbox, "HUNTINGTON_ANYTHING", "SMTP_HOST", "SMTP_USERNAME", "REPORTS_BUCKET"]
    decisive = [name for name in decisive if name.startswith(("HUNTINGTON_", "SMTP_", "REPORTS_")) or "_URL" in name]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(decisive)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    bank = announced_sandbox["HUNTINGTON_API_URL"]
    database = announced_sandbox["SEEDTRUST_DATABASE_URL"].rpartition("/")[2].partition("?")[0]
    assert found.pop("later") == [bank, database]
    assert len(found) == 12
    assert bank not in found.values()


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
