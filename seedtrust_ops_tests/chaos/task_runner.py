"""Runs a task inside a worker process: installs the I/O hooks, does the work, and reports the result.

Loaded once by the server that workers are forked from; nothing here runs in the test's own process.
"""

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from zoneinfo import ZoneInfo

import boto3  # noqa: F401 - loaded before any worker is forked, like the report writers
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.database.session_guards import GUARDS
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.domain.reports.generator import generate_reports
from seedtrust_ops.domain.transfers import sender
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.resources.s3_storage import open_storage
from seedtrust_ops.resources.smtp import open_smtp_transport
from seedtrust_ops_tests.chaos import io_hooks
from seedtrust_ops_tests.chaos.faults import Fault, build_fault
from seedtrust_ops_tests.chaos.injection_points import FaultInjector
from seedtrust_ops_tests.chaos.recovery import auto_heal
from seedtrust_ops_tests.chaos.tasks import Task, TaskResult
from seedtrust_ops_tests.chaos.worker_config import WorkerConfig
from seedtrust_ops_tests.support.databases import plain_url

Sessions = sessionmaker[Session]

TIME_ZONE = "America/New_York"
FROZEN_IN_TRANSACTION_SECONDS = 1


def run_task(task: Task, pipe: Connection) -> None:
    """Run the task and send its result through `pipe`, unless the fault ends the process."""
    if task.fault is Fault.FREEZE:
        # Other workers wait for a frozen worker's locks until the server ends its transaction.
        GUARDS["idle_in_transaction_session_timeout"] = FROZEN_IN_TRANSACTION_SECONDS
    engine = create_application_engine(task.config.database)
    injector = FaultInjector(
        task.injection_point,
        build_fault(task.fault, plain_url(task.config.database), pipe),
        is_persistent=task.is_persistent,
    )
    if task.statements:
        io_hooks.hook_statements(
            engine, injector, lambda statement: statement.lstrip().upper().startswith(task.statements)
        )
    else:
        io_hooks.hook_commits(engine, injector)
        io_hooks.hook_bank_requests(injector)
        io_hooks.hook_smtp(injector)
        io_hooks.hook_storage_requests(injector)
    failure = None
    try:
        TASKS[task.name](sessionmaker(engine, expire_on_commit=False), task.config)
    except Exception as error:  # noqa: BLE001 - any error is part of the result
        failure = f"{type(error).__name__}: {error}"
    pipe.send(TaskResult(injector.recorded_steps, injector.fault_injected, failure, injector.leaving_when_injected))


def process_first_batch(sessions: Sessions, config: WorkerConfig) -> None:
    """Process batch 1. With one request at a time, each response is recorded by itself, so the steps are known."""
    if config.concurrency == 1:
        sender.MAX_RESPONSES_PER_COMMIT, sender.LINGER_SECONDS = 1, 0
    process_batch(sessions, config.open_bank, config.batch_run(1, "the first worker"))


def send_emails(sessions: Sessions, config: WorkerConfig) -> None:
    """Send the emails that are due."""
    with open_smtp_transport(config.mail_settings) as transport:
        send_due_emails(sessions, transport, EmailRenderer(ZoneInfo(TIME_ZONE)))


def approve_and_send_emails(sessions: Sessions, config: WorkerConfig) -> None:
    """Approve the requests that are due by date, and send the emails about them."""
    run_in_transaction(sessions, approve_due)
    send_emails(sessions, config)


def generate_and_send_reports(sessions: Sessions, config: WorkerConfig) -> None:
    """Generate the requested reports, and send the emails about them."""
    # boto3 reads its own environment variables.
    os.environ.update(config.storage)
    for _ in generate_reports(sessions, open_storage(config.storage["REPORTS_BUCKET"]), zone=TIME_ZONE):
        pass
    send_emails(sessions, config)


TASKS: dict[str, Callable[[Sessions, WorkerConfig], None]] = {
    "process": process_first_batch,
    "heal": auto_heal,
    "deliver": send_emails,
    "approve": approve_and_send_emails,
    "report": generate_and_send_reports,
}
