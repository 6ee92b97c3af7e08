"""Which processes find a running sandbox: only those in which nothing real is configured, and only this user's own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seedtrust_ops.config import Settings
from seedtrust_ops.config.running_sandbox import FILE, find_running_sandbox
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.sandbox.announcement import SandboxAlreadyRunning, announce, require_no_other_sandbox

VARIABLES = {
    "SEEDTRUST_DATABASE_URL": "postgresql://localhost/sandbox",
    "DAGSTER_POSTGRES_URL": "postgresql://localhost/dagster",
    "HUNTINGTON_API_URL": "http://127.0.0.1:1",
    "REPORTS_BUCKET": "sandbox",
}
DECISIVE = [
    *("SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL", "REPORTS_BUCKET"),
    *("HUNTINGTON_API_URL", "HUNTINGTON_API_KEY", "HUNTINGTON_FUNDING_ACCOUNT_ID", "HUNTINGTON_CONCURRENCY"),
    *("HUNTINGTON_TIMEOUT_SECONDS", "HUNTINGTON_LEASE_SECONDS", "HUNTINGTON_UNKNOWN_GRACE_SECONDS"),
    *("HUNTINGTON_FUNDING_RETRY_SECONDS", "HUNTINGTON_SOMETHING_NEW"),
    *("SMTP_HOST", "SMTP_PORT", "SMTP_USERNAME", "SMTP_PASSWORD", "SMTP_STARTTLS"),
]
HARMLESS = {
    **{"PATH": "/bin", "DEV_ENV": "1", "DAGSTER_HOME": "/srv", "SEEDTRUST_FIELD_KEY": "a", "AWS_PROFILE": "work"},
    # As for all settings, an empty variable is not set.
    **dict.fromkeys(DECISIVE, ""),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "running"


def test_unconfigured_process_finds_everything_while_the_sandbox_runs(folder: Path) -> None:
    assert find_running_sandbox(HARMLESS, folder) == {}
    with announce(VARIABLES, folder):
        assert find_running_sandbox(HARMLESS, folder) == VARIABLES
        # Readers take no lock that the sandbox's own needs.
        assert find_running_sandbox({}, folder) == VARIABLES
    assert find_running_sandbox(HARMLESS, folder) == {}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("variable", DECISIVE)
def test_one_set_variable_disables_the_sandbox(folder: Path, variable: str) -> None:
    with announce(VARIABLES, folder):
        assert find_running_sandbox(HARMLESS | {variable: "real"}, folder) == {}
        assert find_running_sandbox(HARMLESS | {variable: VARIABLES.get(variable, "0")}, folder) == {}


def open_folder(folder: Path) -> None:
    folder.chmod(0o750)


def open_file(folder: Path) -> None:
    (folder / FILE).chmod(0o640)


def give_away(folder: Path) -> None:
    os.chown(folder / FILE, 65_534, -1)


def give_folder_away(folder: Path) -> None:
    os.chown(folder, 65_534, -1)


def link_file(folder: Path) -> None:
    (folder / FILE).rename(folder / "elsewhere")
    (folder / FILE).symlink_to(folder / "elsewhere")


def link_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def replace_by_pipe(folder: Path) -> None:
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE, 0o600)


@pytest.mark.parametrize(
    "plant",
    [open_folder, open_file, give_away, give_folder_away, link_file, link_folder, replace_by_pipe],
    ids=lambda plant: plant.__name__,
)
def test_file_that_another_user_could_have_written_is_ignored(folder: Path, plant: object) -> None:
    if os.geteuid() != 0 and plant in (give_away, give_folder_away):
        pytest.skip("Only root can give files away.")
    with announce(VARIABLES, folder):
        plant(folder)  # type: ignore[operator]
        assert find_running_sandbox({}, folder) == {}


def test_announced_folder_and_file_are_closed_to_other_users(folder: Path) -> None:
    previous = os.umask(0)
    try:
        with announce(VARIABLES, folder):
            modes = [oct(path.stat().st_mode & 0o777) for path in (folder, folder / FILE)]
    finally:
        os.umask(previous)
    assert modes == ["0o700", "0o600"]


@contextmanager
def announcing_process(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that announces a sandbox and waits."""
    code = (
        "import sys, pathlib; from seedtrust_ops.sandbox.announcement import announce\n"
        f"with announce({VARIABLES!r}, pathlib.Path({str(folder)!r})): print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("child_processes")
def test_killed_sandbox_is_not_found(folder: Path) -> None:
    with announcing_process(folder) as process:
        assert find_running_sandbox({}, folder) == VARIABLES
        process.kill()
        process.wait()
        assert json.loads((folder / FILE).read_text()) == VARIABLES
        assert find_running_sandbox({}, folder) == {}
        # The next one takes its place.
        with announce(VARIABLES | {"SMTP_PORT": "1"}, folder):
            assert find_running_sandbox({}, folder) == VARIABLES | {"SMTP_PORT": "1"}


def test_second_sandbox_on_the_same_database_is_refused(folder: Path) -> None:
    require_no_other_sandbox(VARIABLES["SEEDTRUST_DATABASE_URL"], folder)
    with announce(VARIABLES, folder):
        require_no_other_sandbox("postgresql://localhost/another", folder)
        with pytest.raises(SandboxAlreadyRunning, match="Stop that one first"):
            require_no_other_sandbox(VARIABLES["SEEDTRUST_DATABASE_URL"], folder)


def test_later_sandbox_stays_announced_when_an_earlier_one_ends(folder: Path) -> None:
    later = VARIABLES | {"SEEDTRUST_DATABASE_URL": "postgresql://localhost/another"}
    earlier = announce(VARIABLES, folder)
    earlier.__enter__()
    with announce(later, folder):
        earlier.__exit__(None, None, None)
        assert find_running_sandbox({}, folder) == later


@pytest.mark.parametrize(
    ("bank", "database", "is_refused"),
    [
        ("https://bank.example", "", True),
        ("https://bank.example", "postgresql://localhost/seedtrust", False),
        # A sandbox's, with its variables exported by hand.
        ("http://127.0.0.1:8000", "", False),
        ("http://localhost:8000", "", False),
    ],
)
def test_sample_batches_of_the_embedded_database_reach_no_real_bank(bank: str, database: str, is_refused: bool) -> None:
    keys = {"HUNTINGTON_API_KEY": "key", "HUNTINGTON_FUNDING_ACCOUNT_ID": "account"}
    settings = Settings({"HUNTINGTON_API_URL": bank, "SEEDTRUST_DATABASE_URL": database} | keys)
    if not is_refused:
        assert settings.huntington.api_url == bank
        return
    with pytest.raises(ConfigurationError, match="SEEDTRUST_DATABASE_URL is not set, and the embedded database"):
        _ = settings.huntington


@pytest.mark.parametrize("group", ["huntington", "mail", "storage", "cloudfront", "internal_api", "field_keys"])
def test_unconfigured_process_without_a_sandbox_is_told_what_to_start(group: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        getattr(Settings({"PATH": "/bin"}), group)
    message = str(raised.value)
    assert message.startswith("Nothing is configured here and no sandbox is running, so start one with `make dev` in ")
    assert message.count(". ") == 0
    with pytest.raises(ConfigurationError) as raised:
        getattr(Settings({"DAGSTER_POSTGRES_URL": "postgresql://localhost/dagster"}), group)
    assert " is not set. It is " in str(raised.value)
