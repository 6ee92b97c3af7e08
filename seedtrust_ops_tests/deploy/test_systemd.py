"""deploy/systemd/: valid units, existing commands, and an example that names every variable."""

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
    INTERRUPT_GRACE_SECONDS,
    LOOPBACK,
    RUN_FINISH_SECONDS,
    build_code_server,
    build_daemon,
    build_run_host,
)
from seedtrust_ops_tests.deploy.environment_variables import (
    BOTO3_VARIABLES,
    SET_PER_DEPLOYMENT,
    required_variables,
    setting_variables,
)

ROOT = Path(seedtrust_ops.__file__).parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
PROGRAMS = "/opt/seedtrust-ops/.venv/bin/"
ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)


def unit_settings(unit: Path) -> dict[str, list[str]]:
    """Return the unit's settings; a setting that occurs several times has several values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_target_wants_every_unit_but_the_migrations() -> None:
    (wanted,) = unit_settings(SYSTEMD / "seedtrust-ops.target")["Wants"]
    assert {unit.name for unit in SERVICES} == {*wanted.split(), "seedtrust-ops-migrate.service"}


@pytest.mark.usefixtures("child_processes")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
def test_units_pass_systemd_verification(tmp_path: Path) -> None:
    """systemd-analyze requires every program to exist, so each unit gets an empty script instead."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for unit in [*SERVICES, SYSTEMD / "seedtrust-ops.target"]:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAMS, f"{folder}/"))
    for name in ("seedtrust-ops", "dagster-webserver"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    units = [str(path) for path in sorted(tmp_path.glob("seedtrust-ops*"))]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_commands_exist(unit: Path) -> None:
    (command,) = unit_settings(unit)["ExecStart"]
    assert command.startswith(PROGRAMS)
    program, *arguments = command.removeprefix(PROGRAMS).split()
    if program == "dagster-webserver":
        assert arguments[arguments.index("--host") + 1] == LOOPBACK
        return
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_units_run_unprivileged_in_one_folder(unit: Path) -> None:
    settings = unit_settings(unit)
    for name, value in {
        "User": "seedtrust-ops",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "StateDirectory": "seedtrust-ops",
        "UMask": "0077",
        # Not the source folder: `python -m` would run the source instead of the installed package.
        "WorkingDirectory": "/var/lib/seedtrust-ops",
    }.items():
        assert settings[name] == [value], name
    assert settings["Environment"] == ["DAGSTER_HOME=/var/lib/seedtrust-ops"]
    assert all(file.startswith("/etc/seedtrust-ops/") for file in settings["EnvironmentFile"])


def test_worker_stop_timeout_covers_its_programs() -> None:
    """Another KillMode would interrupt runs at once, and a shorter timeout would kill them."""
    settings = unit_settings(SYSTEMD / "seedtrust-ops-worker.service")
    assert settings["KillMode"] == ["mixed"]
    assert settings["OOMPolicy"] == ["continue"]
    programs = [
        *build_run_host({}, Path()),
        build_code_server({}, Path("code_server.socket")),
        build_daemon({}, Path()),
    ]
    # A process guard terminates the program, then what is left of its session, each with the program's timeout.
    longest = sum(2 * program.stop_seconds for program in programs)
    assert int(settings["TimeoutStopSec"][0]) >= longest
    assert longest > RUN_FINISH_SECONDS + INTERRUPT_GRACE_SECONDS


@pytest.mark.parametrize("name", ["worker", "web", "watchdog"])
def test_services_restart_without_limit(name: str) -> None:
    settings = unit_settings(SYSTEMD / f"seedtrust-ops-{name}.service")
    assert (settings["Restart"], settings["StartLimitIntervalSec"]) == (["always"], ["0"])


def test_example_names_every_variable_and_no_other() -> None:
    text = (SYSTEMD / "environment.example").read_text()
    named = [name for name, _ in ASSIGNMENT.findall(text)]
    assert sorted(named) == sorted(set(named)), "a variable occurs twice"
    assert set(named) == setting_variables().keys() - SET_PER_DEPLOYMENT | BOTO3_VARIABLES
    given = {name for name, _ in re.findall(r"^([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE)}
    assert required_variables() <= given
