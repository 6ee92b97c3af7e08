"""`seedtrust-ops new job` writes a job that is declared in full, and a test that fails until the rule is written."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli import new
from seedtrust_ops.cli.main import app

ROOT = Path(__file__).parents[2]
COPIED = ("seedtrust_ops", "seedtrust_ops_tests", "pyproject.toml", "README.md", "dagster.yaml")
MODELS = {"invented_archive": "plain", "invented_reminders": "email", "invented_counts": "asset"}


RUNS = {"plain": "every 30 minutes", "email": "weekdays 07:30", "asset": "Friday 16:05"}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source code, which the command changes."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    monkeypatch.setattr(new, "CHECKOUT", tmp_path)
    return tmp_path


def run_in(checkout: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.usefixtures("child_processes")
def test_new_jobs_are_declared_in_full_and_their_tests_fail(checkout: Path) -> None:
    for name, model in MODELS.items():
        result = CliRunner().invoke(app, ["new", "job", name, "--model", model, "--runs", RUNS[model]])
        assert result.exit_code == 0, result.output

    for check in (["check"], ["format", "--check"]):
        checked = run_in(checkout, "ruff", *check, ".")
        assert checked.returncode == 0, checked.stdout

    tests = [f"seedtrust_ops_tests/jobs/test_{name}.py" for name in MODELS]
    ran = run_in(checkout, "pytest", "-p", "no:cacheprovider", "seedtrust_ops_tests/test_declarations.py", *tests)
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+?)::", ran.stdout, re.MULTILINE))
    assert failed == set(tests), ran.stdout
    # They fail because the rule finds nothing, not because something is missing.
    assert len(re.findall(r"^seedtrust_ops_tests/jobs/\S+: AssertionError$", ran.stdout, re.MULTILINE)) == len(MODELS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Stale-Cases", "A job can't be named 'Stale-Cases'. Use at most 40 lower-case letters"),
        ("class", "A job can't be named 'class'."),
        ("retention", "There already is a job retention. Nothing was changed."),
        *(
            (name, f"The name {name} is used by a module.")
            for name in ("alerts", "balances", "resources", "dg", "defs")
        ),
        ("job_run_sensor", "The name job_run_sensor is used by a module."),
        ("case_close", "The name case_close is used by a module."),
    ],
)
def test_name_that_can_not_be_used_is_refused(name: str, sentence: str) -> None:
    result = CliRunner().invoke(app, ["new", "job", name])
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())


@pytest.mark.parametrize("runs", ["hourly", "daily 24:00", "every 7 minutes", "every 0 minutes", "someday 07:30", ""])
def test_schedule_that_can_not_be_written_is_refused(runs: str) -> None:
    result = CliRunner().invoke(app, ["new", "job", "invented_job", "--runs", runs])
    assert result.exit_code == 1
    assert f"{runs!r} is not a schedule. Use 'daily 06:00'" in " ".join(result.output.split())


def test_installed_package_has_no_source_code_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new, "CHECKOUT", tmp_path)
    result = CliRunner().invoke(app, ["new", "job", "invented_job"])
    assert result.exit_code == 1
    assert "Run it from a git checkout" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []
