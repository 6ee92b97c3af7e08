"""An outbox with letters in it, deliverers that send them to the real mail server, and what both then hold."""

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

from seedtrust_ops.config.mail import MailSettings
from seedtrust_ops.domain.notifications.previews import EXAMPLES
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.outbox.email_claims import Patience
from seedtrust_ops.domain.outbox.email_dispatcher import DeliveryReport, send_due_emails
from seedtrust_ops.resources.smtp import open_post_office
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Alert, Notification, User

_numbers = itertools.count(1)


@dataclass
class Post:
    """The outbox of one test and its mail server."""

    sessions: sessionmaker[Session]
    mailbox: MailboxProcess
    patience: Patience = field(default_factory=Patience)
    stationery: EmailRenderer = field(default_factory=lambda: EmailRenderer(ZoneInfo("America/New_York")))

    def user(self, *, is_active: bool = True, **columns: Any) -> User:
        number = next(_numbers)
        sound = {"email": f"reader{number}@example.test", "full_name": f"Reader {number}", "role": "admin"}
        with self.sessions.begin() as session:
            user = User(**(sound | columns), is_active=is_active)
            session.add(user)
        return user

    def queue(self, user: User | None = None, *, kind: str = "dr-approved", **changes: Any) -> int:
        """Write one letter, of the kind's example variables unless told otherwise, and return its number."""
        user = user or self.user()
        columns = {
            "dedupe_key": f"{kind}:{next(_numbers)}:{user.id}",
            "recipient_id": user.id,
            "recipient_email": user.email,
            "variables": dict(EXAMPLES[kind].variables) if kind in EXAMPLES else {},
        } | changes
        with self.sessions.begin() as session:
            assert enqueue_emails(session, [Email(kind=kind, **columns)]) == 1
            return session.scalars(
                select(Notification.id).where(Notification.dedupe_key == columns["dedupe_key"])
            ).one()

    def deliver(self, *, answer_seconds: float = 60, longest_seconds: float = 600) -> DeliveryReport:
        settings = MailSettings(**self.mailbox.environment)
        with open_post_office(settings, answer_seconds=answer_seconds) as office:
            return send_due_emails(
                self.sessions, office, self.stationery, patience=self.patience, longest_seconds=longest_seconds
            )

    def letter(self, letter_id: int) -> Notification:
        with self.sessions() as session:
            return session.scalars(select(Notification).where(Notification.id == letter_id)).one()

    def statuses(self) -> dict[str, int]:
        with self.sessions() as session:
            rows = session.execute(select(Notification.status, func.count()).group_by(Notification.status))
            return {row.status: row[1] for row in rows}

    def pause_of(self, letter_id: int) -> timedelta:
        """How long the letter waits now before it is tried again."""
        with self.sessions() as session:
            pause = session.scalars(
                select(Notification.next_attempt_at - Notification.attempted_at).where(Notification.id == letter_id)
            ).one()
            assert isinstance(pause, timedelta)
            return pause

    def let_time_pass(self) -> None:
        """Let every pause and every dead deliverer's hold be over."""
        with self.sessions.begin() as session:
            session.execute(
                update(Notification).where(Notification.status == "queued").values(next_attempt_at=func.now())
            )

    def alerts(self) -> dict[str, str]:
        """Subject and detail of each open alert about letters."""
        with self.sessions() as session:
            rows = session.execute(
                select(Alert.subject, Alert.detail).where(
                    Alert.rule == "notifications_failing", Alert.resolved_at.is_(None)
                )
            )
            return {row.subject: row.detail for row in rows}

    def received(self) -> list[str]:
        """The recipients of all letters that the mail server holds, in order."""
        return [recipient for recipient, _ in self.mailbox.control.message_ids()]

    @contextmanager
    def deliverer(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """A deliverer in a process of its own, which a test may kill; see `deliverer_process`."""
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
            assert process.stdout is not None, "it is opened above"
            process.stdout.close()
