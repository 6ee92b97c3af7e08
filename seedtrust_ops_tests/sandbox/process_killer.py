"""Kills random processes of `seedtrust-ops dev`, one after another, and prints everything that did not recover.

Run as `python -m seedtrust_ops_tests.sandbox.process_killer --kills 10 --seed 1`.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.demo.reconciliation import reconcile
from seedtrust_ops.sandbox.gameday.drill import job_run_differences
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.sandbox.dev_process import (
    DevProcess,
    connect_to_bank,
    describe_process,
    open_databases,
    queue_batch,
)

RECOVERY_SECONDS = 300.0
TIMEOUTS = {
    "DEV_ENV": "0",
    "HUNTINGTON_LEASE_SECONDS": "5",
    "HUNTINGTON_TIMEOUT_SECONDS": "2",
    "HUNTINGTON_UNKNOWN_GRACE_SECONDS": "5",
    "HUNTINGTON_FUNDING_RETRY_SECONDS": "5",
    "SEEDTRUST_HEALTH_WINDOW_SECONDS": "60",
    "SEEDTRUST_HEALTH_QUIET_SECONDS": "5",
}

PrintMessage = Callable[[str], None]


def kill_at_random(folder: Path, *, kills: int, seed: int, print_message: PrintMessage) -> list[str]:
    """Kill `kills` processes of a `dev` in `folder`, each with a batch being sent; return what did not recover."""
    rng = random.Random(seed)
    dev = DevProcess(folder, TIMEOUTS)
    try:
        with open_databases(dev) as (sessions, instance):
            for number in range(kills):
                batch_id = queue_batch(dev, sessions)
                time.sleep(rng.uniform(0, 6))
                victim = rng.choice(dev.processes())
                print_message(
                    f"Kill {number + 1}: {describe_process(victim)} (pid {victim.pid}), with batch {batch_id} queued"
                )
                victim.send_signal(signal.SIGKILL)
                time.sleep(rng.uniform(1, 4))
                if dev.restart_if_stopped():
                    print_message("dev itself was killed and has been restarted")
            print_message("Waiting until all batches are finished and no alert is open")
            problems = _wait_for_recovery(sessions)
            problems += job_run_differences(sessions, instance)
            with sessions() as session:
                problems += ledger_differences(session, connect_to_bank(dev))
                print_message(f"Batches: {dict(Counter(session.scalars(select(HuntingtonBatch.status))))}")
        if problems:
            print_message(dev.log.read_text()[-4000:])
        return problems
    finally:
        dev.stop()


def ledger_differences(session: Session, bank: SandboxBank) -> list[str]:
    """Return the differences between both ledgers, except ACHs that have not settled and are not booked yet."""
    result = reconcile(session, bank)
    settling = set(session.scalars(select(HuntingtonTransaction.id).where(HuntingtonTransaction.status == "submitted")))
    problems = {
        "transactions that differ": [
            transaction_id for transaction_id in result.mismatched_transactions if transaction_id not in settling
        ],
        "accounts that do not match their ledger": result.unbalanced_accounts,
        "unknown references": result.unknown_references,
        "paid more than once": result.paid_more_than_once,
    }
    return [f"{label}: {items}" for label, items in problems.items() if items]


def _wait_for_recovery(sessions: "sessionmaker[Session]") -> list[str]:
    def open_problems() -> list[str]:
        try:
            with sessions() as session:
                open_alerts = session.execute(
                    select(Alert.rule, Alert.subject, Alert.detail).where(Alert.resolved_at.is_(None))
                ).all()
                batches = session.scalars(
                    select(func.count())
                    .select_from(HuntingtonBatch)
                    .where(HuntingtonBatch.status.in_(("queued", "processing")))
                ).one()
        except DBAPIError as error:
            return [f"the database cannot be queried: {error.orig}"]
        return [f"open alert {row.rule} ({row.subject}): {row.detail}" for row in open_alerts] + (
            [f"{batches} batches are not finished"] if batches else []
        )

    deadline = time.monotonic() + RECOVERY_SECONDS
    while (found := open_problems()) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def _print_message(message: str) -> None:
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seedtrust-process-killer-"))
    folder.chmod(0o755)
    try:
        problems = kill_at_random(folder, kills=arguments.kills, seed=arguments.seed, print_message=_print_message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    success = "Recovered: JobRun matches Dagster's runs, the ledgers agree, and no alert is open."
    _print_message("\n".join(problems) or success)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
