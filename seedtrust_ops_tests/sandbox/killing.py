"""Kills processes of `seedtrust-ops dev` at random, one after another, and says what is not as it was afterwards.

Run as `python -m seedtrust_ops_tests.sandbox.killing --kills 10 --seed 1`; with fewer kills it is a test beside this.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.instance.ref import InstanceRef
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import dagster_home
from seedtrust_ops.resources import embedded_postgres
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.postgres import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.sandbox.bank.control import SandboxBank
from seedtrust_ops.sandbox.demo.reconciling import reconcile
from seedtrust_ops.sandbox.gameday.mirrored import differences
from seedtrust_ops.sandbox.seed.batches import Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.waiting import wait_until

PAYMENTS = 3
READY_SECONDS = 120.0
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


class Laptop:
    """A folder that is a user's home, and `seedtrust-ops dev` in it; killed, it is started again as a person would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "said.log"
        self.database = folder / ".seedtrust" / "postgres"
        shutil.copy(dagster_home() / "dagster.yaml", folder)
        self.dev = self._started()

    def _started(self) -> "subprocess.Popen[bytes]":
        with self.log.open("w") as output:
            dev = subprocess.Popen(
                [sys.executable, "-m", "seedtrust_ops.cli", "dev"],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.folder),
                    "DAGSTER_HOME": str(self.folder),
                    **PATIENCE,
                },
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(
            lambda: " is ready after" in self.log.read_text() or dev.poll() is not None,
            seconds=READY_SECONDS,
            every=0.2,
            what=f"dev to be ready; it said {self.log}",
        )
        assert dev.poll() is None, self.log.read_text()
        return dev

    def processes(self) -> list[psutil.Process]:
        """Return every process of `dev`, the database's among them, in the order of their names."""
        found = [psutil.Process(self.dev.pid), *psutil.Process(self.dev.pid).children(recursive=True)]
        postmaster = int((self.database / "postmaster.pid").read_text().split()[0])
        found += [psutil.Process(postmaster), *psutil.Process(postmaster).children()]
        return sorted(found, key=lambda one: (name_of(one), one.pid))

    def start_again_if_dead(self) -> bool:
        """Start `dev` again where it was the one that died."""
        if self.dev.poll() is None:
            return False
        self.dev = self._started()
        return True

    def stop(self) -> None:
        if self.dev.poll() is None:
            self.dev.terminate()
            self.dev.wait(90)
        embedded_postgres.stop(self.database)


def name_of(process: psutil.Process) -> str:
    """Return what a process is, in a few words of its command line."""
    try:
        words = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return "gone"
    told = [word for word in words[1:] if not word.startswith(("-", "/")) and "=" not in word]
    return " ".join([Path(words[0]).name if words else "", *told])[:60]


def kill_at_random(folder: Path, *, kills: int, seed: int, say: Say) -> list[str]:
    """Kill that many processes of a `dev` in `folder`, a batch under way at each; return what is wrong afterwards."""
    chance = random.Random(seed)
    laptop = Laptop(folder)
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


@contextmanager
def connected(laptop: Laptop) -> Iterator[tuple["sessionmaker[Session]", dg.DagsterInstance]]:
    """Yield sessions on the company's database, and Dagster's instance."""
    server = embedded_postgres.start(laptop.database)
    engine = create_application_engine(embedded_postgres.ensure_database(server, APPLICATION_DATABASE))
    url = embedded_postgres.ensure_database(server, DAGSTER_DATABASE).set(drivername="postgresql+psycopg2")
    storage = {"postgres": {"postgres_url": url.render_as_string(False)}}
    ref = InstanceRef.from_dir(str(laptop.folder), overrides={"storage": storage})
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield sessionmaker(engine, expire_on_commit=False), instance
    engine.dispose()


def queue_a_batch(laptop: Laptop, sessions: "sessionmaker[Session]") -> int:
    """Queue a batch of three approved requests, once the database lets us."""
    key = SecretStr((laptop.folder / ".seedtrust" / "field_key").read_text().strip())
    queued: list[int] = []

    def queue() -> bool:
        try:
            with sessions.begin() as session:
                payments = [Payment(one, "wire") for one in payable_requests(session, PAYMENTS)]
                batch = draft_batch(session, payments, FernetFieldCipher([key]).encrypt)
                queue_batches(session, [batch.batch_id])
            queued.append(batch.batch_id)
        except DBAPIError:
            return False
        return True

    wait_until(queue, seconds=READY_SECONDS, what="a database that takes a batch")
    return queued[0]


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


def bank_of(laptop: Laptop) -> SandboxBank:
    """Return the control of the bank that `dev` runs."""
    for process in psutil.Process(laptop.dev.pid).children(recursive=True):
        url = process.environ().get("HUNTINGTON_API_URL")
        if url is not None:
            return SandboxBank(url)
    raise AssertionError("no process of dev knows a bank")


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
