"""deploy/systemd/: units that systemd takes, commands that are ours, and an example that names every variable."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seedtrust_ops
from seedtrust_ops.cli.main import app
from seedtrust_ops.supervisor.worker_stack import (
    INTERRUPTED_SECONDS,
    LOOPBACK,
    RUN_SECONDS,
    code_server,
    daemon,
    run_host,
)
from seedtrust_ops_tests.deploy.environment_variables import HERE, OF_BOTO3, known, needed

ROOT = Path(seedtrust_ops.__file__).parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
PROGRAMS = "/opt/seedtrust-ops/.venv/bin/"
ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)


def settings_of(unit: Path) -> dict[str, list[str]]:
    """The unit's settings; one that is given several times has several values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_the_units_are_those_that_the_target_wants_and_the_migrations() -> None:
    (wanted,) = settings_of(SYSTEMD / "seedtrust-ops.target")["Wants"]
    assert {unit.name for unit in SERVICES} == {*wanted.split(), "seedtrust-ops-migrate.service"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """It wants every program to be there, so each is given an empty one in the place of the real."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for unit in [*SERVICES, SYSTEMD / "seedtrust-ops.target"]:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAMS, f"{folder}/"))
    for name in ("seedtrust-ops", "dagster-webserver"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    units = [str(path) for path in sorted(tmp_path.glob("seedtrust-ops*"))]
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_every_command_is_one_of_ours(unit: Path) -> None:
    (command,) = settings_of(unit)["ExecStart"]
    assert command.startswith(PROGRAMS)
    program, *arguments = command.removeprefix(PROGRAMS).split()
    if program == "dagster-webserver":
        assert arguments[arguments.index("--host") + 1] == LOOPBACK
        return
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_every_unit_runs_without_rights_and_keeps_its_files_in_one_folder(unit: Path) -> None:
    settings = settings_of(unit)
    for name, value in {
        "User": "seedtrust-ops",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "StateDirectory": "seedtrust-ops",
        "UMask": "0077",
        # Not where the source lies: `python -m` would run that instead of what was installed.
        "WorkingDirectory": "/var/lib/seedtrust-ops",
    }.items():
        assert settings[name] == [value], name
    assert settings["Environment"] == ["DAGSTER_HOME=/var/lib/seedtrust-ops"]
    assert all(file.startswith("/etc/seedtrust-ops/") for file in settings["EnvironmentFile"])


def test_the_worker_is_given_the_time_that_its_programs_take_to_end() -> None:
    """With another KillMode the runs would be interrupted at once, and with less time killed."""
    settings = settings_of(SYSTEMD / "seedtrust-ops-worker.service")
    assert settings["KillMode"] == ["mixed"]
    assert settings["OOMPolicy"] == ["continue"]
    programs = [*run_host({}, Path()), code_server({}, 1), daemon({}, Path())]
    # A keeper asks once and then once more all that is left, each time for as long as the program has.
    longest = sum(2 * program.stop_seconds for program in programs)
    assert int(settings["TimeoutStopSec"][0]) >= longest
    assert longest > RUN_SECONDS + INTERRUPTED_SECONDS


@pytest.mark.parametrize("name", ["worker", "web", "watchdog"])
def test_what_must_run_is_started_again_for_ever(name: str) -> None:
    settings = settings_of(SYSTEMD / f"seedtrust-ops-{name}.service")
    assert (settings["Restart"], settings["StartLimitIntervalSec"]) == (["always"], ["0"])


def test_the_example_names_every_variable_and_no_other() -> None:
    text = (SYSTEMD / "environment.example").read_text()
    named = [name for name, _ in ASSIGNMENT.findall(text)]
    assert sorted(named) == sorted(set(named)), "a variable stands twice"
    assert set(named) == known().keys() - HERE | OF_BOTO3
    given = {name for name, _ in re.findall(r"^([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE)}
    assert needed() <= given
