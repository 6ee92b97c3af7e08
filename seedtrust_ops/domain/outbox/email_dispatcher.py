"""Sends the emails that are due: claim a batch, count an attempt, send the email, record the result.

Each attempt is committed before its email leaves, and each result before the next email does, so that a crash in
between duplicates at most one email, under the same Message-ID.
See docs/decisions/outbox.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnsendableEmail
from seedtrust_ops.domain.outbox.email_claims import (
    NOTIFICATIONS_FAILING,
    Claim,
    DueEmail,
    EmailRetryPolicy,
    NotSentReason,
    claim_emails,
    record_deferred,
    record_failed,
    record_sent,
    release_claim,
    start_attempt,
)
from seedtrust_ops.domain.outbox.email_store import count_due_emails, count_queued_emails
from seedtrust_ops.domain.outbox.mime_messages import build_message
from seedtrust_ops.formatting import format_duration, pluralize
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, EmailTransport, MailServerUnavailable

MAIL_SERVER = "mail server"
"""The subject of the alert that no email can be sent."""
NOTIFY_AFTER = timedelta(minutes=10)
"""An outage of the mail server opens an alert once an email has waited this long."""

RecordOutcome = Callable[[Session], object]


@dataclass
class DeliveryReport:
    """The counts of one delivery; `withheld` are emails to inactive users, `still_due` are due and were not tried."""

    sent: int = 0
    will_retry: int = 0
    failed: int = 0
    withheld: int = 0
    still_due: int = 0
    error: str | None = None
    """Why the mail server can't be used; None if it can."""


def send_due_emails(
    sessions: Sessions,
    transport: EmailTransport,
    renderer: EmailRenderer,
    *,
    retry_policy: EmailRetryPolicy | None = None,
    max_seconds: float = 600,
    kinds: Sequence[str] | None = None,
) -> DeliveryReport:
    """Send the emails that are due, most urgent kind first, until none is left or `max_seconds` have passed.

    If `kinds` is given, only emails of these kinds are sent.

    Any number of dispatchers may run at once. An email that can't be rendered or is rejected fails alone. If the mail
    server can't be used, an attempt is counted for the one email that was being sent and for no other.
    """
    delivery = _Delivery(sessions, transport, renderer, retry_policy or EmailRetryPolicy())
    deadline = monotonic() + max_seconds
    while monotonic() < deadline and delivery.report.error is None:
        claim = run_in_transaction(sessions, lambda session: claim_emails(session, delivery.retry_policy, kinds))
        if claim is None:
            break
        delivery.send_claimed(claim, deadline)
    delivery.report.still_due = run_in_transaction(sessions, count_due_emails)
    return delivery.report


class _Delivery:
    """A delivery in progress."""

    def __init__(
        self,
        sessions: Sessions,
        transport: EmailTransport,
        renderer: EmailRenderer,
        retry_policy: EmailRetryPolicy,
    ) -> None:
        self.sessions = sessions
        self.transport = transport
        self.renderer = renderer
        self.retry_policy = retry_policy
        self.report = DeliveryReport()

    def send_claimed(self, claim: Claim, deadline: float) -> None:
        """Send one batch. The result of an email and the start of the next one are one transaction."""
        record: RecordOutcome = _record_nothing
        for email_id in claim.email_ids:
            if monotonic() >= deadline or self.report.error is not None:
                break
            started = run_in_transaction(
                self.sessions, partial(_record_and_start, record, claim, email_id, self.retry_policy)
            )
            record = self._send(claim, started) if isinstance(started, DueEmail) else self._count_not_sent(started)
        run_in_transaction(self.sessions, partial(_record_and_release, record, claim))

    def _send(self, claim: Claim, email: DueEmail) -> RecordOutcome:
        """Send the email, and return the function that records the result."""
        try:
            message, subject = build_message(email, self.renderer, self.transport.sender)
            self.transport.send(message)
        except (UnsendableEmail, EmailRejected) as error:
            self.report.failed += 1
            return partial(_record_rejection, email, str(error))
        except EmailDeferred as error:
            return self._defer(claim, email, str(error))
        except MailServerUnavailable as error:
            self.report.error = str(error)
            record_retry = self._defer(claim, email, str(error))
            return partial(_record_outage, record_retry, str(error))
        self.report.sent += 1
        return partial(_record_success, email, subject, self.report.sent == 1)

    def _defer(self, claim: Claim, email: DueEmail, error: str) -> RecordOutcome:
        if email.attempts >= self.retry_policy.for_kind(email.kind).max_attempts:
            self.report.failed += 1
        else:
            self.report.will_retry += 1
        return lambda session: record_deferred(session, claim, email, error, self.retry_policy)

    def _count_not_sent(self, reason: NotSentReason) -> RecordOutcome:
        self.report.withheld += reason is NotSentReason.INACTIVE_RECIPIENT
        self.report.failed += reason is NotSentReason.ATTEMPTS_EXHAUSTED
        return _record_nothing


def _record_nothing(_session: Session) -> None:
    return None


def _record_and_start(
    record: RecordOutcome, claim: Claim, email_id: int, retry_policy: EmailRetryPolicy, session: Session
) -> DueEmail | NotSentReason:
    record(session)
    return start_attempt(session, claim, email_id, retry_policy)


def _record_and_release(record: RecordOutcome, claim: Claim, session: Session) -> None:
    record(session)
    release_claim(session, claim)


def _record_rejection(email: DueEmail, error: str, session: Session) -> None:
    record_failed(session, email.id, email.kind, error)


def _record_success(email: DueEmail, subject: str, is_first: bool, session: Session) -> None:
    record_sent(session, email, subject)
    if is_first:
        resolve_alert(session, NOTIFICATIONS_FAILING, MAIL_SERVER)


def _record_outage(record_retry: RecordOutcome, error: str, session: Session) -> None:
    waiting = count_queued_emails(session, NOTIFY_AFTER)
    record_retry(session)
    if waiting:
        # The number renews the alert while more and more emails wait.
        waiting_text = f"{pluralize(waiting, 'email')} waiting for more than {format_duration(NOTIFY_AFTER.seconds)}."
        open_alert(session, NOTIFICATIONS_FAILING, MAIL_SERVER, "HIGH", f"{error} {waiting_text}")
