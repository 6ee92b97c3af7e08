"""`seedtrust-ops worker` as in production: a real daemon sends a batch, restarts after a kill, and leaves nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.config import dagster_home, environment_for_child
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.databases import plain_url, temporary_database
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until


def find_daemons(supervisor: psutil.Process) -> list[psutil.Process]:
    """Return the running daemon itself, without its process guard."""
    found = []
    for process in supervisor.children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if (
            "seedtrust_ops.supervisor.fast_daemon" in command
            and "seedtrust_ops.supervisor.process_guard" not in command
        ):
            found.append(process)
    return found


def is_zygote(process: psutil.Process) -> bool:
    """Return whether it is a zygote, and not a run forked from one."""
    try:
        return "seedtrust_ops.launcher.zygote" in process.cmdline() and os.getpgid(process.pid) != process.pid
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(900)
def test_worker_sends_batch_survives_kill_and_leaves_nothing(
    bank_environment: dict[str, str], bank: BankProcess, company: Company, postgres_server: URL, tmp_path: Path
) -> None:
    shutil.copy(dagster_home() / "dagster.yaml", tmp_path)
    log = tmp_path / "worker.log"
    with temporary_database(postgres_server) as dagster_url, log.open("w") as output:
        variables = environment_for_child(
            bank_environment
            | {"DAGSTER_HOME": str(tmp_path), "DAGSTER_POSTGRES_URL": plain_url(dagster_url), "DEV_ENV": "0"}
            | {"SEEDTRUST_SENSOR_WAIT_SECONDS": "9.5"}
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "worker"], env=variables, stdout=output, stderr=output
        )
        try:
            supervisor = psutil.Process(worker.pid)
            wait_until(lambda: find_daemons(supervisor), seconds=120, what="the daemon to start")
            (first,) = find_daemons(supervisor)
            first.kill()
            wait_until(
                lambda: [daemon for daemon in find_daemons(supervisor) if daemon.pid != first.pid],
                seconds=120,
                what="the daemon to restart",
            )
            batch_id = company.batch([1_000, 2_000, 3_000])
            wait_until(
                lambda: company.batch_row(batch_id).status == "completed", seconds=240, every=0.2, what="the batch"
            )
            slow_id = company.batch([4_000, 5_000])
            last = company.transactions(slow_id)[-1].id
            # The bank responds with 429 until the worker is asked to stop, so that a run is certainly active then.
            bank.control.inject_fault("rate_limited", times=None, idempotency_key=idempotency_key(last), seconds=1)
            wait_until(lambda: company.batch_row(slow_id).status == "processing", seconds=120, what="the slow batch")
            processes = supervisor.children(recursive=True)
            # The first run used a loaded zygote: the run host had started it on its own.
            wait_until(
                lambda: len([candidate for candidate in processes if is_zygote(candidate)]) == 1,
                what="exactly one zygote",
            )
            worker.send_signal(signal.SIGTERM)
            bank.control.clear_faults()
            assert worker.wait(240) == 0
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGKILL)
                worker.wait()
    assert company.statuses(batch_id) == ["completed"] * 3
    # The run that was active when the worker was asked to stop could finish.
    assert company.statuses(slow_id) == ["completed"] * 2
    assert company.unbalanced_accounts() == []
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
