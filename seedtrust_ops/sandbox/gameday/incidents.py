"""The incidents of the drill: how each is caused and ended, which alert rules may detect it, and how it recovers.

Each is a context manager over the demo's environment: the incident lasts as long as the block. `drill` runs them.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil
from sqlalchemy import func, select, update

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.sandbox.bank.control_client import ODD_ROWS
from seedtrust_ops.sandbox.demo.disruptions import sender_pid
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.demo.scenarios import BAD_CHECK_DIGIT
from seedtrust_ops.sandbox.seed.batches import NewBatch, Payment, draft_batch, payable_requests, queue_batches
from seedtrust_ops.supervisor.crash_alerts import RULE as PROCESS_DIED
from seedtrust_ops.tables import Account, ReportRequest, User

THRESHOLDS = {
    "SEEDTRUST_HEALTH_INTERVAL_SECONDS": 2,
    "SEEDTRUST_HEALTH_QUIET_SECONDS": 2,
    "SEEDTRUST_HEALTH_WINDOW_SECONDS": 30,
    "SEEDTRUST_HEALTH_PENDING_SECONDS": 6,
    "SEEDTRUST_HEALTH_BATCH_QUEUED_SECONDS": 20,
    "SEEDTRUST_HEALTH_BATCH_STUCK_SECONDS": 20,
    "SEEDTRUST_HEALTH_REPORTS_WAITING_SECONDS": 10,
    "SEEDTRUST_HEALTH_LEDGER_EVERY_SECONDS": 5,
    "SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS": 8,
}
WATCHDOG = {
    "SEEDTRUST_WATCHDOG_INTERVAL_SECONDS": 3,
    "SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS": 45,
    "SEEDTRUST_WATCHDOG_GRACE_SECONDS": 20,
    "SEEDTRUST_WATCHDOG_DATABASE_SECONDS": 10,
}
VARIABLES = {name: str(seconds) for name, seconds in (THRESHOLDS | WATCHDOG).items()}
"""The thresholds of the drill, set by environment variables alone: seconds where production uses minutes."""

PAYMENTS = 4
SLOW_PAYMENTS = 12
QUEUED_BATCHES = 12
BATCH_START_SECONDS = 60.0
TAMPERED_CENTS = 12_345
SENSOR_SECONDS = 30
"""Upper bound of a sensor's interval: Dagster evaluates sensors every 5 seconds, and ours wait up to 10."""
HEAL_SECONDS = 60
"""How long it takes until auto-heal asks the bank again."""
OVERDUE_FOR = timedelta(days=30)
TICKS_SECONDS = 2 * SENSOR_SECONDS + WATCHDOG["SEEDTRUST_WATCHDOG_GRACE_SECONDS"]


class CauseFailed(Exception):
    """The incident could not be caused, so it has no result."""


@dataclass(frozen=True)
class Incident:
    """One incident of the drill."""

    name: str
    cause: Callable[[DemoEnvironment], AbstractContextManager[None]]
    rules: tuple[str, ...]
    """The alert rules that may detect it."""
    threshold_seconds: float
    """The threshold that the drill's environment sets for the rule that must detect it."""
    recovery: str
    """How it recovers, as shown in the table."""
    email_works: bool = True
    """Whether emails can be delivered during the incident."""


def queue_payments(env: DemoEnvironment, number: int = PAYMENTS, *, method: str = "wire") -> NewBatch:
    """Put `number` approved requests into a new batch and queue it."""
    batch = _draft_payments(env, number, method=method)
    with env.sessions.begin() as session:
        queue_batches(session, [batch.batch_id])
    return batch


def _draft_payments(env: DemoEnvironment, number: int = PAYMENTS, *, method: str = "wire") -> NewBatch:
    with env.sessions.begin() as session:
        payments = [Payment(payable, method) for payable in payable_requests(session, number)]
        return draft_batch(session, payments, env.encrypt)


@contextmanager
def _kill_processes(env: DemoEnvironment, command_part: str) -> Iterator[None]:
    """Kill the worker's processes with `command_part` in their command line; the supervisor should restart them."""
    children = psutil.Process(env.worker.pid).children(recursive=True)
    victims = [
        child
        for child in children
        if command_part in " ".join(child.cmdline()) and "process_guard" not in " ".join(child.cmdline())
    ]
    if not victims:
        commands = "; ".join(" ".join(child.cmdline()[1:4]) for child in children)
        raise CauseFailed(f"No process of the worker has {command_part!r} in its command line. Found: {commands}.")
    for victim in victims:
        _send_signal(victim.pid, signal.SIGKILL)
    queue_payments(env)
    yield


def daemon_killed(env: DemoEnvironment) -> AbstractContextManager[None]:
    """Kill the Dagster daemon with SIGKILL."""
    return _kill_processes(env, "seedtrust_ops.supervisor.fast_daemon")


def code_server_killed(env: DemoEnvironment) -> AbstractContextManager[None]:
    """Kill both processes of the code server with SIGKILL."""
    return _kill_processes(env, "code-server start")


@contextmanager
def worker_gone(env: DemoEnvironment) -> Iterator[None]:
    """Kill the whole worker with SIGKILL; only a person (or systemd) restarts it."""
    env.worker.kill()
    queue_payments(env)
    yield
    env.worker.restart()


@contextmanager
def run_worker_killed(env: DemoEnvironment) -> Iterator[None]:
    """Kill the process that sends a batch with SIGKILL, while the batch is partly sent."""
    env.bank.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.8)
    batch = queue_payments(env, SLOW_PAYMENTS)
    deadline = time.monotonic() + BATCH_START_SECONDS
    while not (pid := sender_pid(env, batch.batch_id)) or not _is_any_at_bank(env, batch):
        if time.monotonic() > deadline:
            raise CauseFailed("The batch's run did not start.")
        time.sleep(0.1)
    _send_signal(pid, signal.SIGKILL)
    env.bank.clear_faults()
    yield


@contextmanager
def bank_down(env: DemoEnvironment) -> Iterator[None]:
    """Kill the bank's server; its books stay on disk."""
    env.stack.bank.server.kill()
    queue_payments(env)
    yield
    env.stack.restart_stopped()


@contextmanager
def bank_slow(env: DemoEnvironment) -> Iterator[None]:
    """Make every response about transfers come after the client's timeout, although each transfer is made."""
    env.bank.inject_fault("late_response_after_commit", path="/v1/transfers", times=None, seconds=4.0)
    queue_payments(env, SLOW_PAYMENTS)
    yield
    env.bank.clear_faults()


@contextmanager
def mail_down(env: DemoEnvironment) -> Iterator[None]:
    """Kill the mail server, and fail a batch so that there is an email to send."""
    env.stack.mailbox.server.kill()
    _queue_failing_batch(env)
    yield
    env.stack.restart_stopped()


@contextmanager
def storage_down(env: DemoEnvironment) -> Iterator[None]:
    """Kill S3 and request a report."""
    env.stack.services.storage.server.kill()
    with env.sessions.begin() as session:
        admin = session.scalars(select(User.id).where(User.role == "admin", User.is_active).limit(1)).one()
        session.add(ReportRequest(user_id=admin, kind="account_balances", format="csv"))
    yield
    env.stack.restart_stopped()


@contextmanager
def posthog_down(env: DemoEnvironment) -> Iterator[None]:
    """Make PostHog reject everything, and fail a batch so that there is an event to send."""
    env.stack.services.posthog.respond_with(503)
    _queue_failing_batch(env)
    yield
    env.stack.services.posthog.respond_with(None)


@contextmanager
def queue_stuck(env: DemoEnvironment) -> Iterator[None]:
    """Queue more batches than can be sent at once while the bank is slow, so that the rest wait for a slot."""
    env.bank.inject_fault("late_response_after_commit", method="POST", times=None, seconds=1.5)
    for _ in range(QUEUED_BATCHES):
        queue_payments(env, SLOW_PAYMENTS)
    yield
    env.bank.clear_faults()


@contextmanager
def tick_missed(env: DemoEnvironment) -> Iterator[None]:
    """Freeze the code server: the daemon still sends heartbeats, but nothing ticks."""
    children = psutil.Process(env.worker.pid).children(recursive=True)
    frozen = [
        child.pid for child in children if "code-server start" in " ".join(child.cmdline()) or _is_grpc_api(child)
    ]
    for pid in frozen:
        _send_signal(pid, signal.SIGSTOP)
    queue_payments(env)
    yield
    for pid in frozen:
        _send_signal(pid, signal.SIGCONT)


@contextmanager
def ledger_tampered_with(env: DemoEnvironment) -> Iterator[None]:
    """Change an account's balance without a ledger entry."""
    with env.sessions.begin() as session:
        account_id = session.scalars(select(func.min(Account.id))).one()
        session.execute(
            update(Account).where(Account.id == account_id).values(balance_cents=Account.balance_cents + TAMPERED_CENTS)
        )
    yield
    with env.sessions.begin() as session:
        session.execute(
            update(Account).where(Account.id == account_id).values(balance_cents=Account.balance_cents - TAMPERED_CENTS)
        )


@contextmanager
def database_restarted(env: DemoEnvironment) -> Iterator[None]:
    """Stop PostgreSQL while a batch is being sent, for longer than the watchdog's threshold."""
    env.bank.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.8)
    _wait_until_at_bank(env, queue_payments(env, SLOW_PAYMENTS))
    embedded_postgres.stop(env.database_folder)
    env.bank.clear_faults()
    yield
    embedded_postgres.start(env.database_folder)


@contextmanager
def unknown_transfer_at_bank(env: DemoEnvironment) -> Iterator[None]:
    """Let a wire leave the funding account that nobody at SeedTrust ordered; a person asks the bank and explains it."""
    # Auto-heal reads the bank's feed in each run, and runs every minute while anything is open.
    queue_payments(env, method="ach")
    unknown = env.bank.add_unknown_transfer()
    yield
    env.run_command(
        *("transfers", "explain", unknown["id"], "--reason", "Huntington: another customer's wire, will be reversed")
    )


@contextmanager
def funds_low(env: DemoEnvironment) -> Iterator[None]:
    """Drain the funding account and queue a batch; it must wait, and be sent by itself once the account is funded."""
    (account,) = env.bank.totals()["accounts"]
    env.bank.set_available_cents(0)
    queue_payments(env)
    yield
    env.bank.set_available_cents(account["available_cents"])


@contextmanager
def settlement_late(env: DemoEnvironment) -> Iterator[None]:
    """Make the bank report the ACH of a batch as accepted a month ago and not settled."""
    batch = _draft_payments(env, method="ach")
    accepted_at = datetime.now(UTC) - OVERDUE_FOR
    for transaction_id in batch.transaction_ids:
        env.bank.misreport(str(transaction_id), {"status": "accepted", "created_at": accepted_at.isoformat()})
    with env.sessions.begin() as session:
        queue_batches(session, [batch.batch_id])
    yield
    for transaction_id in batch.transaction_ids:
        env.bank.report_truly(str(transaction_id))


@contextmanager
def row_poisoned(env: DemoEnvironment) -> Iterator[None]:
    """Make the bank report one ACH of a batch with a status that nobody knows; the others must settle meanwhile."""
    batch = queue_payments(env, method="ach")
    _wait_until_at_bank(env, batch)
    reference = str(batch.transaction_ids[0])
    env.bank.misreport(reference, ODD_ROWS["unknown status"])
    yield
    env.bank.report_truly(reference)


def _wait_until_at_bank(env: DemoEnvironment, batch: NewBatch) -> None:
    deadline = time.monotonic() + BATCH_START_SECONDS
    while not _is_any_at_bank(env, batch):
        if time.monotonic() > deadline:
            raise CauseFailed("The batch's run did not start.")
        time.sleep(0.1)


def _is_any_at_bank(env: DemoEnvironment, batch: NewBatch) -> bool:
    references = {str(transaction_id) for transaction_id in batch.transaction_ids}
    return any(transfer["reference"] in references for transfer in env.bank.ledger()["transfers"])


def _queue_failing_batch(env: DemoEnvironment) -> None:
    """Queue a batch whose only payment has an invalid routing number: its run fails and people must be notified."""
    with env.sessions.begin() as session:
        (payable,) = payable_requests(session, 1)
        batch = draft_batch(session, [Payment(payable, "wire", BAD_CHECK_DIGIT)], env.encrypt)
        queue_batches(session, [batch.batch_id])


def _is_grpc_api(process: psutil.Process) -> bool:
    return " api grpc" in " ".join(process.cmdline())


def _send_signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It has already exited: a child exits with its parent.
        return


INCIDENTS = (
    Incident("daemon killed", daemon_killed, (PROCESS_DIED,), 0, "automatic: the worker restarts it"),
    Incident("code server killed", code_server_killed, (PROCESS_DIED,), 0, "automatic: the worker restarts it"),
    Incident("run worker killed", run_worker_killed, ("error_spike",), 0, "automatic: a new run sends the batch"),
    Incident("bank down", bank_down, ("bank_silent", "error_spike"), 0, "automatic: when the bank is back"),
    Incident("bank slow", bank_slow, ("bank_silent", "error_spike"), 0, "automatic: when the bank responds in time"),
    Incident(
        "mail down",
        mail_down,
        ("notifications_failing",),
        THRESHOLDS["SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS"],
        "automatic: when the mail server is back",
        email_works=False,
    ),
    Incident(
        "S3 down",
        storage_down,
        ("reports_waiting", "error_spike"),
        THRESHOLDS["SEEDTRUST_HEALTH_REPORTS_WAITING_SECONDS"],
        "automatic: when S3 is back",
    ),
    Incident(
        "PostHog down",
        posthog_down,
        ("notifications_failing",),
        THRESHOLDS["SEEDTRUST_HEALTH_TELLING_WAITS_SECONDS"],
        "automatic: when PostHog is back",
    ),
    Incident(
        "queue stuck",
        queue_stuck,
        ("pending_accumulating",),
        THRESHOLDS["SEEDTRUST_HEALTH_PENDING_SECONDS"],
        "automatic: when slots are free",
    ),
    Incident(
        "ledger tampered with",
        ledger_tampered_with,
        ("ledger_mismatch",),
        THRESHOLDS["SEEDTRUST_HEALTH_LEDGER_EVERY_SECONDS"],
        "manual: a person corrects the balance",
    ),
    Incident(
        "unknown transfer",
        unknown_transfer_at_bank,
        ("unknown_transfer",),
        HEAL_SECONDS,
        "manual: a person runs `seedtrust-ops transfers explain <bank id>`",
    ),
    Incident(
        "low funds",
        funds_low,
        ("insufficient_funding",),
        0,
        "automatic: the batch is sent once a person has funded the account",
    ),
    Incident(
        "overdue settlement",
        settlement_late,
        ("settlement_overdue",),
        0,
        "automatic: when the bank settles it (if it never does: `seedtrust-ops transfers settle`)",
    ),
    Incident(
        "poison row",
        row_poisoned,
        ("bank_transfer_unreadable",),
        HEAL_SECONDS,
        "automatic: when the bank reports it readably (if it never does: `seedtrust-ops transfers settle`)",
    ),
    Incident("tick missed", tick_missed, ("ticks_stopped",), TICKS_SECONDS, "automatic: when the code server responds"),
    Incident(
        "worker gone",
        worker_gone,
        ("daemon_silent",),
        WATCHDOG["SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS"],
        "manual: a person restarts the worker",
    ),
    Incident(
        "database restarted",
        database_restarted,
        ("database_down",),
        WATCHDOG["SEEDTRUST_WATCHDOG_DATABASE_SECONDS"],
        "automatic: when PostgreSQL is back",
    ),
)
