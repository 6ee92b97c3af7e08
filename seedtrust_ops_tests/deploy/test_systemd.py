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
    RUN_FINISH_SECONDS,
    build_code_server,
    build_daemon,
    build_run_host,
)
from seedtrust_ops_tests.deploy.environment_variables import (
    BOTO3_VARIABLES,
    SECRET,
    SET_PER_DEPLOYMENT,
    required_variables,
    secrets_by_component,
    setting_variables,
)

ROOT = Path(seedtrust_ops.__file__).parents[1]
SYSTEMD = ROOT / "deploy" / "systemd"
SERVICES = sorted(SYSTEMD.glob("*.service"))
PROGRAMS = "/opt/seedtrust-ops/.venv/bin/"
USERS = {
    "seedtrust-ops-worker": "seedtrust-ops",
    "seedtrust-ops-web": "seedtrust-ops",
    "seedtrust-ops-watchdog": "seedtrust-ops-watchdog",
    "seedtrust-ops-migrate": "seedtrust-ops-migrate",
}
"""The web server interrupts the worker's runs and reaches its code server, in a folder that only its user may enter."""
MAX_EXPOSURE = 1.2
"""Of 10, by systemd's own measure. What is left is mostly the network, which each of them needs."""
ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.MULTILINE)


def unit_settings(unit: Path) -> dict[str, list[str]]:
    """Return the unit's settings; a setting that occurs several times has several values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def variables_in(file: str, *, given: bool = False) -> list[str]:
    """Return the variables that the file names, or if `given` only those that are not commented out."""
    text = (SYSTEMD / file).read_text()
    return [match[1] for match in ASSIGNMENT.finditer(text) if not given or not match[0].startswith("#")]


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
    (folder / "seedtrust-ops").write_text("#!/bin/sh\n")
    (folder / "seedtrust-ops").chmod(0o755)
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
    assert "--host" not in arguments, "the web server listens on loopback by default"
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


@pytest.mark.usefixtures("child_processes")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")
@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_units_are_hardly_exposed(unit: Path) -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MAX_EXPOSURE * 10:.0f}", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_units_run_unprivileged_in_one_folder(unit: Path) -> None:
    settings = unit_settings(unit)
    user = USERS[unit.stem]
    for name, value in {
        "User": user,
        "Group": user,
        "NoNewPrivileges": "yes",
        # Other processes cannot read its variables from /proc, not even those of the same user.
        "PrivateUsers": "yes",
        "LimitCORE": "0",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "UMask": "0077",
    }.items():
        assert settings[name] == [value], name
    if unit.stem == "seedtrust-ops-migrate":
        assert not {"StateDirectory", "ReadWritePaths", "Environment"} & settings.keys()
        return
    assert settings["StateDirectory"] == [user]
    assert settings["StateDirectoryMode"] == ["0700"]
    # Not the source folder: `python -m` would run the source instead of the installed package.
    assert settings["WorkingDirectory"] == [f"/var/lib/{user}"]
    assert settings["Environment"] == [f"DAGSTER_HOME=/var/lib/{user}"]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_units_get_the_secrets_of_their_component_only(unit: Path) -> None:
    component = unit.stem.removeprefix("seedtrust-ops-")
    folder = "/etc/seedtrust-ops"
    assert unit_settings(unit)["EnvironmentFile"] == [f"{folder}/common.env", f"{folder}/{component}.env"]
    credentials = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} if component == "worker" else set()
    assert set(variables_in(f"{component}.env")) == secrets_by_component()[component] | credentials


def test_worker_has_what_its_programs_have_in_containers() -> None:
    secrets = secrets_by_component()
    assert secrets["worker"] == secrets["run"] | secrets["code-server"] | secrets["daemon"]


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


def test_examples_name_every_variable_and_no_other() -> None:
    common = variables_in("common.env")
    assert sorted(common) == sorted(set(common)), "a variable occurs twice"
    assert not [name for name in common if SECRET.search(name)]
    named = {*common, *variables_in("worker.env")}
    assert named == setting_variables().keys() - SET_PER_DEPLOYMENT | BOTO3_VARIABLES
    assert required_variables() <= {*variables_in("common.env", given=True), *variables_in("worker.env", given=True)}
