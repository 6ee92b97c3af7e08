"""The troubles of the drill: how each is caused, which alerts may tell of it, and who ends it.

Each is a context manager over the stage: inside the block the trouble lasts, at its end it is over. What is made
of it is in `drill`.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psutil
from sqlalchemy import func, select, update

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.sandbox.demo.disruptions import pid_of_sender
from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.demo.scenarios import BAD_CHECK_DIGIT
from seedtrust_ops.sandbox.gameday.timeouts import THRESHOLDS, WATCHDOG
from seedtrust_ops.sandbox.seed.batches import NewBatch, Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.supervisor.crash_alerts import RULE as PROCESS_DIED
from seedtrust_ops.tables import Account, ReportRequest, User

PAYMENTS = 4
SLOW_PAYMENTS = 12
BATCHES_AT_ONCE = 12
LONG_WAIT_SECONDS = 60.0
TAMPERED_CENTS = 12_345
SENSOR_SECONDS = 30
"""The longest that a sensor's interval is taken for here: Dagster looks at all every 5 seconds, ours wait up to 10."""
TICKS_SECONDS = 2 * SENSOR_SECONDS + WATCHDOG["SEEDTRUST_WATCHDOG_GRACE_SECONDS"]


class CauseFailed(Exception):
    """The trouble could not be caused, so nothing can be said about it."""


@dataclass(frozen=True)
class Trouble:
    """One trouble; `own_seconds` is the threshold that the drill's environment gives the rule that must notice it."""

    name: str
    cause: Callable[[Stage], AbstractContextManager[None]]
    rules: tuple[str, ...]
    own_seconds: float
    recovery: str
    hears_mail: bool = True
    """Whether letters can be delivered meanwhile."""


def queue_payments(stage: Stage, number: int = PAYMENTS) -> NewBatch:
    """Put that many approved requests into a batch and queue it."""
    with stage.sessions.begin() as session:
        payments = [Payment(one, "wire") for one in payable_requests(session, number)]
        batch = draft_batch(session, payments, stage.encrypt)
        queue_batches(session, [batch.batch_id])
    return batch


@contextmanager
def _killed(stage: Stage, words: str) -> Iterator[None]:
    """Kill our worker's processes whose command line holds `words`; the supervisor's part is to start them again."""
    family = psutil.Process(stage.worker.pid).children(recursive=True)
    victims = [one for one in family if words in " ".join(one.cmdline()) and "keeper" not in " ".join(one.cmdline())]
    if not victims:
        shown = "; ".join(" ".join(one.cmdline()[1:4]) for one in family)
        raise CauseFailed(f"No process of the worker has {words!r} in its command line: {shown}.")
    for victim in victims:
        _signal(victim.pid, signal.SIGKILL)
    queue_payments(stage)
    yield


def daemon_killed(stage: Stage) -> AbstractContextManager[None]:
    """SIGKILL Dagster's daemon."""
    return _killed(stage, "seedtrust_ops.supervisor.fast_daemon")


def code_server_killed(stage: Stage) -> AbstractContextManager[None]:
    """SIGKILL the code server, both its processes."""
    return _killed(stage, "code-server start")


@contextmanager
def worker_gone(stage: Stage) -> Iterator[None]:
    """SIGKILL the whole worker; nobody but a person (or systemd) starts it again."""
    stage.worker.kill()
    queue_payments(stage)
    yield
    stage.worker.start_again()


@contextmanager
def run_worker_killed(stage: Stage) -> Iterator[None]:
    """SIGKILL the process that sends a batch, in its middle."""
    stage.bank.order_fault("answer_late_after_commit", method="POST", times=None, seconds=0.8)
    batch = queue_payments(stage, SLOW_PAYMENTS)
    deadline = time.monotonic() + LONG_WAIT_SECONDS
    while not (pid := pid_of_sender(stage, batch.batch_id)) or not _some_sent(stage, batch):
        if time.monotonic() > deadline:
            raise CauseFailed("The batch's run never started.")
        time.sleep(0.1)
    _signal(pid, signal.SIGKILL)
    stage.bank.clear_faults()
    yield


@contextmanager
def bank_down(stage: Stage) -> Iterator[None]:
    """Kill the bank's server; its books stay on its disk."""
    stage.world.bank.server.kill()
    queue_payments(stage)
    yield
    stage.world.revive()


@contextmanager
def bank_slow(stage: Stage) -> Iterator[None]:
    """Let every answer of the bank come later than anybody waits for it, though each transfer is made."""
    stage.bank.order_fault("answer_late_after_commit", times=None, seconds=4.0)
    queue_payments(stage, SLOW_PAYMENTS)
    yield
    stage.bank.clear_faults()


@contextmanager
def mail_down(stage: Stage) -> Iterator[None]:
    """Kill the mail server while there is a letter to write: that a batch failed."""
    stage.world.mailbox.server.kill()
    _queue_failing_batch(stage)
    yield
    stage.world.revive()


@contextmanager
def storage_down(stage: Stage) -> Iterator[None]:
    """Kill S3 and ask for a report."""
    stage.world.outside.storage.server.kill()
    with stage.sessions.begin() as session:
        admin = session.scalars(select(User.id).where(User.role == "admin", User.is_active).limit(1)).one()
        session.add(ReportRequest(user_id=admin, kind="account_balances", format="csv"))
    yield
    stage.world.revive()


@contextmanager
def posthog_down(stage: Stage) -> Iterator[None]:
    """Let PostHog refuse everything while there is something to tell it: that a batch failed."""
    stage.world.outside.posthog.answer_with(503)
    _queue_failing_batch(stage)
    yield
    stage.world.outside.posthog.answer_with(None)


@contextmanager
def queue_stuck(stage: Stage) -> Iterator[None]:
    """Queue more batches than may be sent at once, at a bank that takes its time: the rest waits for a slot."""
    stage.bank.order_fault("answer_late_after_commit", method="POST", times=None, seconds=1.5)
    for _ in range(BATCHES_AT_ONCE):
        queue_payments(stage, SLOW_PAYMENTS)
    yield
    stage.bank.clear_faults()


@contextmanager
def tick_missed(stage: Stage) -> Iterator[None]:
    """Freeze the code server: the daemon's heart beats on, and nothing ticks."""
    family = psutil.Process(stage.worker.pid).children(recursive=True)
    frozen = [one.pid for one in family if "code-server start" in " ".join(one.cmdline()) or _is_api(one)]
    for pid in frozen:
        _signal(pid, signal.SIGSTOP)
    queue_payments(stage)
    yield
    for pid in frozen:
        _signal(pid, signal.SIGCONT)


@contextmanager
def ledger_tampered_with(stage: Stage) -> Iterator[None]:
    """Change an account's balance behind the ledger's back."""
    with stage.sessions.begin() as session:
        account_id = session.scalars(select(func.min(Account.id))).one()
        session.execute(
            update(Account).where(Account.id == account_id).values(balance_cents=Account.balance_cents + TAMPERED_CENTS)
        )
    yield
    with stage.sessions.begin() as session:
        session.execute(
            update(Account).where(Account.id == account_id).values(balance_cents=Account.balance_cents - TAMPERED_CENTS)
        )


@contextmanager
def database_restarted(stage: Stage) -> Iterator[None]:
    """Stop PostgreSQL in the middle of a batch, for longer than the watchdog bears it."""
    stage.bank.order_fault("answer_late_after_commit", method="POST", times=None, seconds=0.8)
    batch = queue_payments(stage, SLOW_PAYMENTS)
    deadline = time.monotonic() + LONG_WAIT_SECONDS
    while not _some_sent(stage, batch):
        if time.monotonic() > deadline:
            raise CauseFailed("The batch's run never started.")
        time.sleep(0.1)
    embedded_postgres.stop(stage.database_folder)
    stage.bank.clear_faults()
    yield
    embedded_postgres.start(stage.database_folder)


def _some_sent(stage: Stage, batch: NewBatch) -> bool:
    wanted = {str(one) for one in batch.transaction_ids}
    return any(transfer["reference"] in wanted for transfer in stage.bank.ledger()["transfers"])


def _queue_failing_batch(stage: Stage) -> None:
    """Queue a batch whose only payment has a routing number that is none: its run fails, and people must be told."""
    with stage.sessions.begin() as session:
        (payable,) = payable_requests(session, 1)
        batch = draft_batch(session, [Payment(payable, "wire", BAD_CHECK_DIGIT)], stage.encrypt)
        queue_batches(session, [batch.batch_id])


def _is_api(process: psutil.Process) -> bool:
    return " api grpc" in " ".join(process.cmdline())


def _signal(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        # It went by itself: a child ends with its parent.
        return


TROUBLES = (
    Trouble("daemon killed", daemon_killed, (PROCESS_DIED,), 0, "by itself: the worker starts it again"),
    Trouble("code server killed", code_server_killed, (PROCESS_DIED,), 0, "by itself: the worker starts it again"),
    Trouble("run worker killed", run_worker_killed, ("error_spike",), 0, "by itself: the batch is sent by a new run"),
    Trouble("bank down", bank_down, ("bank_silent", "error_spike"), 0, "by itself, once the bank is back"),
    Trouble("bank slow", bank_slow, ("bank_silent", "error_spike"), 0, "by itself, once the bank answers in time"),
    Trouble(
        "mail down",
        mail_down,
        ("notifications_failing",),
        THRESHOLDS["SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS"],
        "by itself, once the mail server is back",
        hears_mail=False,
    ),
    Trouble(
        "S3 down",
        storage_down,
        ("reports_waiting", "error_spike"),
        THRESHOLDS["SEEDTRUST_HEALTH_REPORTS_WAITING_SECONDS"],
        "by itself, once S3 is back",
    ),
    Trouble(
        "PostHog down",
        posthog_down,
        ("notifications_failing",),
        THRESHOLDS["SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS"],
        "by itself, once PostHog is back",
    ),
    Trouble(
        "queue stuck",
        queue_stuck,
        ("pending_accumulating",),
        THRESHOLDS["SEEDTRUST_HEALTH_PENDING_SECONDS"],
        "by itself, once slots are free",
    ),
    Trouble(
        "ledger tampered with",
        ledger_tampered_with,
        ("ledger_mismatch",),
        THRESHOLDS["SEEDTRUST_HEALTH_LEDGER_EVERY_SECONDS"],
        "a person puts the balance right",
    ),
    Trouble("tick missed", tick_missed, ("ticks_stopped",), TICKS_SECONDS, "the code server thaws"),
    Trouble(
        "worker gone",
        worker_gone,
        ("daemon_silent",),
        WATCHDOG["SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS"],
        "a person starts the worker",
    ),
    Trouble(
        "database restarted",
        database_restarted,
        ("database_down",),
        WATCHDOG["SEEDTRUST_WATCHDOG_DATABASE_SECONDS"],
        "by itself, once PostgreSQL is back",
    ),
)
