"""`seedtrust-ops worker` as production runs it: a real daemon sends a batch, comes back from a kill, leaves nothing."""

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
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.databases import own_database, plain
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until


def daemons(supervisor: psutil.Process) -> list[psutil.Process]:
    """The living daemon itself, below its keeper."""
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
    """Whether it is one that runs are forked of, and no run."""
    try:
        return "seedtrust_ops.launcher.zygote" in process.cmdline() and os.getpgid(process.pid) != process.pid
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False


@pytest.mark.timeout(900)
def test_it_sends_a_batch_survives_a_kill_and_leaves_nothing(
    bank_environment: dict[str, str], bank: BankProcess, company: Company, postgres_server: URL, tmp_path: Path
) -> None:
    shutil.copy(dagster_home() / "dagster.yaml", tmp_path)
    log = tmp_path / "worker.log"
    with own_database(postgres_server) as dagster_url, log.open("w") as output:
        variables = environment_for_child(
            bank_environment
            | {"DAGSTER_HOME": str(tmp_path), "DAGSTER_POSTGRES_URL": plain(dagster_url), "DEV_ENV": "0"}
            | {"SEEDTRUST_SENSOR_WAIT_SECONDS": "9.5"}
        )
        worker = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "worker"], env=variables, stdout=output, stderr=output
        )
        try:
            supervisor = psutil.Process(worker.pid)
            wait_until(lambda: daemons(supervisor), seconds=120, what="the daemon's start")
            (first,) = daemons(supervisor)
            first.kill()
            wait_until(
                lambda: [one for one in daemons(supervisor) if one.pid != first.pid],
                seconds=120,
                what="the daemon's second start",
            )
            batch_id = company.batch([1_000, 2_000, 3_000])
            wait_until(
                lambda: company.batch_row(batch_id).status == "completed", seconds=240, every=0.2, what="the batch"
            )
            slow_id = company.batch([4_000, 5_000])
            last = company.transactions(slow_id)[-1].id
            # The bank asks for patience until the worker was told to stop, so that a run is sure to be under way then.
            bank.control.order_fault("rate_limited", times=None, idempotency_key=idempotency_key(last), seconds=1)
            wait_until(lambda: company.batch_row(slow_id).status == "processing", seconds=120, what="the slow batch")
            family = supervisor.children(recursive=True)
            # The first run found the code loaded: the run host had done that by itself.
            wait_until(lambda: len([one for one in family if is_zygote(one)]) == 1, what="one zygote and no other")
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
    # The run that was under way when the worker was told to stop was let finish.
    assert company.statuses(slow_id) == ["completed"] * 2
    assert company.unbalanced_accounts() == []
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
