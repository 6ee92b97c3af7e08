"""What a worker does on an errand: it puts the hooks on, does the work, and tells how that went.

Loaded once by the server that workers are forked from; nothing here runs in the test's own process.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from zoneinfo import ZoneInfo

import boto3  # noqa: F401 - loaded before anybody is forked, as what writes reports is
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database import engine as database_engine
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_dispatcher import send_due_emails
from seedtrust_ops.domain.reports.generator import generate_reports
from seedtrust_ops.domain.transfers import sender
from seedtrust_ops.domain.transfers.auto_heal import heal
from seedtrust_ops.domain.transfers.batch_processor import process_batch
from seedtrust_ops.resources.s3_storage import open_storage
from seedtrust_ops.resources.smtp import open_post_office
from seedtrust_ops_tests.chaos import io_hooks
from seedtrust_ops_tests.chaos.faults import Strike, prepare
from seedtrust_ops_tests.chaos.injection_points import Steps
from seedtrust_ops_tests.chaos.tasks import Errand, Told
from seedtrust_ops_tests.chaos.worker_environment import Workplace
from seedtrust_ops_tests.support.databases import plain

Sessions = sessionmaker[Session]

OFFICE = "America/New_York"
FROZEN_IN_TRANSACTION_SECONDS = 1


def work(errand: Errand, line: Connection) -> None:
    """Do the errand's work and tell of it, unless the strike is deadly."""
    if errand.strike is Strike.FREEZE:
        # What a frozen worker has locked, others wait for until the server ends its transaction.
        database_engine.IDLE_IN_TRANSACTION_SECONDS = FROZEN_IN_TRANSACTION_SECONDS
    engine = database_engine.create_application_engine(errand.place.database)
    steps = Steps(errand.moment, prepare(errand.strike, plain(errand.place.database), line), goes_on=errand.goes_on)
    if errand.statements:
        io_hooks.count_statements(
            engine, steps, lambda statement: statement.lstrip().upper().startswith(errand.statements)
        )
    else:
        io_hooks.count_commits(engine, steps)
        io_hooks.count_bank_requests(steps)
        io_hooks.count_mail(steps)
        io_hooks.count_storage_requests(steps)
    trouble = None
    try:
        WORKS[errand.work](sessionmaker(engine, expire_on_commit=False), errand.place)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        trouble = f"{type(error).__name__}: {error}"
    line.send(Told(steps.recorded, steps.has_struck, trouble, steps.were_leaving))


def process_first_batch(sessions: Sessions, place: Workplace) -> None:
    """Process batch 1. With one request at a time, each answer is recorded by itself, so that the steps are known."""
    if place.concurrency == 1:
        sender.RECORD_AT_MOST, sender.LINGER_SECONDS = 1, 0
    process_batch(
        sessions,
        place.open_bank,
        place.cipher,
        place.rules,
        batch_id=1,
        holder="the first worker",
        asked_at=datetime.now(UTC),
    )


def heal_all(sessions: Sessions, place: Workplace) -> None:
    """Heal whatever is open."""
    heal(sessions, place.open_bank, unknown_grace_seconds=0)


def deliver(sessions: Sessions, place: Workplace) -> None:
    """Deliver the letters that are due."""
    with open_post_office(place.mail_settings) as post_office:
        send_due_emails(sessions, post_office, EmailRenderer(ZoneInfo(OFFICE)))


def approve_and_deliver(sessions: Sessions, place: Workplace) -> None:
    """Approve what is due by date, and deliver the letters about it."""
    run_in_transaction(sessions, approve_due)
    deliver(sessions, place)


def make_reports(sessions: Sessions, place: Workplace) -> None:
    """Make the reports that are asked for, and deliver the letters about them."""
    # boto3 reads its variables itself.
    os.environ.update(place.storage)
    for _ in generate_reports(sessions, open_storage(place.storage["REPORTS_BUCKET"]), zone=OFFICE):
        pass
    deliver(sessions, place)


WORKS: dict[str, Callable[[Sessions, Workplace], None]] = {
    "process": process_first_batch,
    "heal": heal_all,
    "deliver": deliver,
    "approve": approve_and_deliver,
    "report": make_reports,
}
