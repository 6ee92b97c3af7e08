"""`seedtrust-ops dev` and `sandbox` with an empty home folder: they start, print addresses, and stop completely."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from seedtrust_ops.config import dagster_home
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.supervisor.worker_stack import find_free_port
from seedtrust_ops_tests.jobs.job_runner import dagster
from seedtrust_ops_tests.support.tiers import long_version
from seedtrust_ops_tests.support.waiters import wait_until


@contextmanager
def running_command(folder: Path, *command: str, **variables: str) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """Run the command with an empty home folder and these variables; yield the process and its log file."""
    shutil.copy(dagster_home() / "dagster.yaml", folder)
    log = folder / "output.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops.cli.main", *command],
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "DAGSTER_HOME": str(folder), **variables},
            stdout=output,
            stderr=output,
            # Its own process group, as in a terminal, where Ctrl-C goes to the whole group.
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        embedded_postgres.stop(folder / ".seedtrust" / "postgres")


@long_version(of="browser/test_ui.py::test_dev_seeds_a_company_and_stops_completely_on_ctrl_c")
@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(900)
def test_dev_without_worker_starts_with_a_company_and_stops_completely(open_folder: Path) -> None:
    # A port of its own, because another test's `dev` that starts at the same time would also find 3000 free.
    command = ("dev", "--no-worker", "--port", str(find_free_port()))
    with running_command(open_folder, *command, SMTP_PORT="2525", AWS_DEFAULT_REGION="eu-west-1") as (dev, log):
        wait_until(lambda: " is ready after" in log.read_text() or dev.poll() is not None, seconds=420, every=0.2)
        output = log.read_text()
        assert "Seeded a company with 200 cases" in output, output
        found = re.search(r"(http://127\.0\.0\.1:\d+) is ready", output)
        assert found is not None, output
        assert httpx.get(f"{found[1]}/server_info", trust_env=False, timeout=120).status_code == 200
        assert "The sandbox replaces these variables of this shell: AWS_DEFAULT_REGION, SMTP_PORT." in output
        # What its programs print is in the file.
        assert {line.partition("|")[0].strip() for line in output.splitlines() if "|" in line} == {"dev"}
        assert (
            "web         | Starting the Dagster UI" in (open_folder / ".seedtrust" / "worker" / "dev.log").read_text()
        )
        emails = subprocess.run(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "notifications", "list"],
            env={"PATH": os.environ["PATH"], "HOME": str(open_folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (emails.returncode, emails.stdout) == (0, "No emails.\n"), emails.stderr
        os.killpg(dev.pid, signal.SIGINT)
        assert dev.wait(240) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert not embedded_postgres.is_running(open_folder / ".seedtrust" / "postgres")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{found[1]}/server_info", trust_env=False)


@pytest.mark.usefixtures("child_processes")
@pytest.mark.timeout(600)
def test_bare_shell_without_a_sandbox_is_told_in_one_sentence_what_to_start(open_folder: Path) -> None:
    shutil.copy(dagster_home() / "dagster.yaml", open_folder)
    try:
        done = dagster(
            *("job", "execute", "-m", "seedtrust_ops.definitions", "-j", "auto_heal_huntington_batches"),
            variables={},
            folder=open_folder,
            timeout_seconds=400,
        )
    finally:
        embedded_postgres.stop(open_folder / ".seedtrust" / "postgres")
    assert done.returncode != 0
    sentence = (
        "Nothing is configured here and no sandbox is running, so start one with `make dev` in another terminal, or "
        "set HUNTINGTON_API_URL (the URL of the Huntington API, such as https://bank.example), HUNTINGTON_API_KEY ("
    )
    assert sentence in done.stderr
    assert "STEP_UP_FOR_RETRY" not in done.stderr


@pytest.mark.usefixtures("child_processes")
@pytest.mark.timeout(900)
def test_sandbox_prints_export_lines(open_folder: Path) -> None:
    with running_command(open_folder, "sandbox") as (sandbox, log):
        wait_until(lambda: "Ctrl-C" in log.read_text() or sandbox.poll() is not None, seconds=420, every=0.2)
        exported = dict(
            line.removeprefix("export ").split("=", 1)
            for line in log.read_text().splitlines()
            if line.startswith("export ")
        )
        account = httpx.get(
            f"{exported['HUNTINGTON_API_URL']}/v1/accounts/{exported['HUNTINGTON_FUNDING_ACCOUNT_ID']}",
            headers={"Authorization": f"Bearer {exported['HUNTINGTON_API_KEY']}"},
            trust_env=False,
            timeout=60,
        )
        assert account.status_code == 200
        assert len(exported["SEEDTRUST_FIELD_KEY"]) == 44
        sandbox.send_signal(signal.SIGTERM)
        assert sandbox.wait(240) == 0
