"""Adds emails to the outbox, sends them to the sandbox mail server, and reads the state of both."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.ports.object_storage import SignLink
from seedtrust_ops.resources.smtp import open_smtp_transport
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Alert, Notification, User

_numbers = itertools.count(1)


@dataclass
class OutboxHarness:
    """The email outbox in one test's database, and the mail server it sends to."""

    sessions: sessionmaker[Session]
    mailbox: MailboxProcess
    renderer: EmailRenderer = field(default_factory=lambda: EmailRenderer(ZoneInfo("America/New_York")))

    def add_user(self, *, is_active: bool = True, **columns: Any) -> User:
        number = next(_numbers)
        defaults = {"email": f"reader{number}@example.test", "full_name": f"Reader {number}", "role": "admin"}
        with self.sessions.begin() as session:
            user = User(**(defaults | columns), is_active=is_active)
            session.add(user)
        return user

    def enqueue(self, user: User | None = None, *, kind: str = "dr-approved", **changes: Any) -> int:
        """Enqueue one email, by default with the kind's example variables, and return its id."""
        user = user or self.add_user()
        columns = {
            "dedupe_key": f"{kind}:{next(_numbers)}:{user.id}",
            "recipient_id": user.id,
            "recipient_email": user.email,
            "variables": dict(KINDS[kind].examples[kind].variables) if kind in KINDS else {},
        } | changes
        with self.sessions.begin() as session:
            assert enqueue_emails(session, [Email(kind=kind, **columns)]) == 1
            return session.scalars(
                select(Notification.id).where(Notification.dedupe_key == columns["dedupe_key"])
            ).one()

    def send_due(
        self, *, timeout_seconds: float = 60, max_seconds: float = 600, sign_link: SignLink | None = None
    ) -> DeliveryReport:
        settings = MailSettings(**self.mailbox.environment)
        with open_smtp_transport(settings, timeout_seconds=timeout_seconds) as transport:
            return send_due_emails(
                self.sessions, transport, self.renderer, max_seconds=max_seconds, sign_link=sign_link
            )

    def row(self, email_id: int) -> Notification:
        with self.sessions() as session:
            return session.scalars(select(Notification).where(Notification.id == email_id)).one()

    def statuses(self) -> dict[str, int]:
        with self.sessions() as session:
            rows = session.execute(select(Notification.status, func.count()).group_by(Notification.status))
            return {row.status: row[1] for row in rows}

    def retry_delay(self, email_id: int) -> timedelta:
        """Return the time between the last attempt and the next one."""
        with self.sessions() as session:
            delay = session.scalars(
                select(Notification.next_attempt_at - Notification.attempted_at).where(Notification.id == email_id)
            ).one()
            assert isinstance(delay, timedelta)
            return delay

    def make_all_due(self) -> None:
        """End every retry delay and the hold of every crashed dispatcher."""
        with self.sessions.begin() as session:
            session.execute(
                update(Notification).where(Notification.status == "queued").values(next_attempt_at=func.now())
            )

    def open_alerts(self) -> dict[str, str]:
        """Return the subject and detail of each open alert about notifications."""
        with self.sessions() as session:
            rows = session.execute(
                select(Alert.subject, Alert.detail).where(
                    Alert.rule == "notifications_failing", Alert.resolved_at.is_(None)
                )
            )
            return {row.subject: row.detail for row in rows}

    def received_recipients(self) -> list[str]:
        """Return the recipients of all emails that the mail server received, in order."""
        return [recipient for recipient, _ in self.mailbox.control.message_ids()]

    @contextmanager
    def dispatcher_process(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a dispatcher in its own process, which a test may kill; see `dispatcher_process.py`."""
        url = self.sessions.kw["bind"].url.set(drivername="postgresql").render_as_string(hide_password=False)
        process = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops_tests.domain.outbox.dispatcher_process", *arguments],
            env=os.environ | self.mailbox.environment | {"SEEDTRUST_DATABASE_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None, "stdout is a pipe"
            process.stdout.close()
