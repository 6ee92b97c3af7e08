"""Kills processes of `seedtrust-ops dev` at random, one after another, and says what is not as it was afterwards.

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
from seedtrust_ops.sandbox.gameday.job_run_diff import differences
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.sandbox.laptop import Laptop, bank_of, connected, name_of, queue_a_batch

QUIET_SECONDS = 300.0
PATIENCE = {
    "DEV_ENV": "0",
    "HUNTINGTON_LEASE_SECONDS": "5",
    "HUNTINGTON_TIMEOUT_SECONDS": "2",
    "HUNTINGTON_UNKNOWN_GRACE_SECONDS": "5",
    "SEEDTRUST_HEALTH_WINDOW_SECONDS": "60",
    "SEEDTRUST_HEALTH_QUIET_SECONDS": "5",
}

Say = Callable[[str], None]


def kill_at_random(folder: Path, *, kills: int, seed: int, say: Say) -> list[str]:
    """Kill that many processes of a `dev` in `folder`, a batch under way at each; return what is wrong afterwards."""
    chance = random.Random(seed)
    laptop = Laptop(folder, PATIENCE)
    try:
        with connected(laptop) as (sessions, instance):
            for number in range(kills):
                batch_id = queue_a_batch(laptop, sessions)
                time.sleep(chance.uniform(0, 6))
                victim = chance.choice(laptop.processes())
                say(f"kill {number + 1}: {name_of(victim)} (pid {victim.pid}), with batch {batch_id} queued")
                victim.send_signal(signal.SIGKILL)
                time.sleep(chance.uniform(1, 4))
                if laptop.start_again_if_dead():
                    say("dev itself had died and was started again")
            say("Waiting until all is quiet")
            wrong = _wait_until_quiet(sessions)
            wrong += differences(sessions, instance)
            with sessions() as session:
                wrong += differences_of_books(session, bank_of(laptop))
                say(f"{dict(Counter(session.scalars(select(HuntingtonBatch.status))))}")
        if wrong:
            say(laptop.log.read_text()[-4000:])
        return wrong
    finally:
        laptop.stop()


def differences_of_books(session: Session, bank: SandboxBank) -> list[str]:
    """Return how both ledgers differ; an ACH that has a day to settle is at the bank and not booked yet."""
    books = reconcile(session, bank)
    settling = set(session.scalars(select(HuntingtonTransaction.id).where(HuntingtonTransaction.status == "submitted")))
    differ = [one for one in books.transactions_that_differ if one not in settling]
    wrong = {
        "transactions that differ": differ,
        "accounts that do not add up": books.accounts_that_do_not_add_up,
        "unknown references": books.unknown_references,
        "paid more than once": books.paid_more_than_once,
    }
    return [f"{what}: {which}" for what, which in wrong.items() if which]


def _wait_until_quiet(sessions: "sessionmaker[Session]") -> list[str]:
    def left() -> list[str]:
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
            return [f"the database can't be asked: {error.orig}"]
        return [f"alert {row.rule} about {row.subject} is open: {row.detail}" for row in open_alerts] + (
            [f"{batches} batches are not finished."] if batches else []
        )

    deadline = time.monotonic() + QUIET_SECONDS
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seedtrust-killing-"))
    folder.chmod(0o755)
    try:
        wrong = kill_at_random(folder, kills=arguments.kills, seed=arguments.seed, say=_say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "JobRun equals Dagster's runs, and no alert is open.\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
