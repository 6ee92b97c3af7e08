"""Sends emails: renders them as MIME messages, hands them to `ports.email`, and opens alerts about failed ones.

The Message-ID depends only on the dedupe key and the sender's domain, so that an email that is sent again because
its response was lost can be recognized as a duplicate. Claims and retries are in `dispatcher`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.charset import QP, Charset
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.utils import formatdate
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, or_, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.notifications.kind_registry import KINDS, MAX_NAME_CHARS, Urgency, kind_names_by_urgency
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnsendableEmail
from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport, Sink, Withheld, send_due
from seedtrust_ops.domain.outbox.queue import FAILED, Queue, RetryPolicy, requeue
from seedtrust_ops.domain.outbox.store import Attachment, count_queued_emails
from seedtrust_ops.email_addresses import (
    InvalidEmailAddress,
    format_mailbox,
    format_text,
    parse_mailbox,
    to_ascii_address,
)
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import format_duration, pluralize, shorten, single_line
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, EmailTransport, MailServerUnavailable
from seedtrust_ops.ports.object_storage import SignLink
from seedtrust_ops.tables import Notification, NotificationAttachment, User

# Quoted-printable, because mail servers need not accept 8-bit characters or long lines.
_UTF8 = Charset("utf-8")
_UTF8.body_encoding = QP

NOTIFICATIONS_FAILING = "notifications_failing"
"""The rule of the alerts about emails and events that are not sent."""
MAIL_SERVER = "mail server"
"""The subject of the alert that no email can be sent."""
NOTIFY_AFTER = timedelta(minutes=10)
"""An outage of the mail server opens an alert once an email has waited this long, one about an alert at once."""
INACTIVE_RECIPIENT = "The recipient is not an active user; inactive users receive no email."
EMAIL_RETRIES = RetryPolicy(first_delay=timedelta(minutes=1), backoff_factor=6, max_attempts=5)
"""Emails are retried after 1, 6 and 36 minutes, and 3.6 hours."""
ALERT_EMAIL_RETRIES = RetryPolicy(
    first_delay=timedelta(seconds=30), backoff_factor=2, max_delay=timedelta(minutes=10), max_attempts=150
)
"""Emails about alerts are retried after 30 seconds, 1, 2, 4 and 8 minutes, then every 10 minutes, for a day.

So people learn of an outage at most 10 minutes after it ends.
"""
EMAIL_CLAIM_DURATION = timedelta(minutes=10)
"""With a timeout of 30 seconds per response, an email whose connection has to be reopened takes at most 7 minutes."""


FOREVER = timedelta(days=36_500)
MIN_RECIPIENTS_OF_OUTAGE = 3
"""If this many recipients are refused and none is accepted, the mail server accepts nothing from us."""


class OutOfDate(Withheld):
    """The email is older than it is of use."""


class LinkUnavailable(Exception):
    """The link in this email cannot be signed now; other emails need none."""


@dataclass(frozen=True)
class DueEmail:
    """An email with everything that is needed to render and address it; `recipient_name` is empty if not a user's."""

    id: int
    dedupe_key: str
    kind: str
    recipient_email: str
    recipient_name: str
    subject: str
    variables: Mapping[str, Any]
    attachment: Attachment | None


def send_due_emails(
    sessions: Sessions,
    transport: EmailTransport,
    renderer: EmailRenderer,
    *,
    max_seconds: float = 600,
    kinds: Sequence[str] | None = None,
    claim_duration: timedelta = EMAIL_CLAIM_DURATION,
    sign_link: SignLink | None = None,
) -> DeliveryReport:
    """Send the emails that are due, most urgent kind first, until none is left or `max_seconds` have passed.

    Only emails of `kinds` are sent, or of all kinds that this process knows: an email of another kind stays queued for
    a release that knows it. An email that can't be rendered or is rejected fails alone. After a crash, what was claimed
    waits for `claim_duration`, which must be longer than sending one email can take.

    An email with a `stored_file` gets a link to it from `sign_link`. The link is in the email and nowhere else: people
    who read the outbox must not be able to read reports.
    """
    names = kind_names_by_urgency() if kinds is None else kinds
    queue = Queue(
        Notification,
        [Notification.kind == name for name in names],
        retry_policy=lambda email: ALERT_EMAIL_RETRIES if KINDS[email.kind].urgency is Urgency.ALERT else EMAIL_RETRIES,
        claim_duration=claim_duration,
    )
    return send_due(sessions, queue, _EmailSink(transport, renderer, sign_link), max_seconds=max_seconds)


@dataclass(frozen=True)
class RequeuedEmails:
    """How many failed emails were requeued, and how many were too old or have an inactive recipient."""

    requeued: int
    out_of_date: int
    inactive: int


def requeue_failed(session: Session) -> RequeuedEmails:
    """Requeue the failed emails with all their attempts, unless they are out of date or their recipient is inactive.

    It also resolves the alerts about the requeued ones: the caller has dealt with their cause.
    """
    active = select(User.id).where(User.id == Notification.recipient_id, User.is_active)
    is_active = or_(Notification.recipient_id.is_(None), active.exists())
    requeued = requeue(session, Notification, is_active, _is_up_to_date())
    for kind in {email.kind for email in requeued}:
        resolve_alert(session, NOTIFICATIONS_FAILING, alert_subject(kind))
    out_of_date, inactive = session.execute(
        select(func.count().filter(~_is_up_to_date()), func.count().filter(_is_up_to_date())).where(
            Notification.status == FAILED
        )
    ).one()
    return RequeuedEmails(len(requeued), out_of_date, inactive)


def _is_up_to_date() -> ColumnElement[bool]:
    """Return the condition that an email is still of use; of an unknown kind, a release that knows it decides."""
    ages = [(Notification.kind == kind.name, kind.useful_for) for kind in KINDS.values() if kind.useful_for is not None]
    return Notification.created_at >= func.now() - case(*ages, else_=FOREVER)


def alert_subject(kind: str) -> str:
    """Return the subject of the alert about failed emails of this kind."""
    return f"{kind} emails"


class _EmailSink(Sink[Notification, DueEmail]):
    """Renders emails and sends them over one connection to the mail server."""

    rejections = (UnsendableEmail,)
    refusals = (EmailRejected,)
    deferrals = (EmailDeferred, LinkUnavailable)
    outages = (MailServerUnavailable,)

    def __init__(self, transport: EmailTransport, renderer: EmailRenderer, sign_link: SignLink | None) -> None:
        self._transport = transport
        self._renderer = renderer
        self._sign_link = sign_link

    def load(self, session: Session, row: Notification) -> DueEmail:
        recipient = select(User.full_name).where(User.id == row.recipient_id, User.is_active)
        name = "" if row.recipient_id is None else session.scalars(recipient).one_or_none()
        if name is None:
            raise Withheld(INACTIVE_RECIPIENT)
        useful_for = KINDS[row.kind].useful_for
        if useful_for is not None and row.created_at < datetime.now(UTC) - useful_for:
            raise OutOfDate(
                f"It was queued more than {format_duration(useful_for.total_seconds())} ago, and is of no use any more."
            )
        file = session.get(NotificationAttachment, row.id)
        return DueEmail(
            id=row.id,
            dedupe_key=row.dedupe_key,
            kind=row.kind,
            recipient_email=row.recipient_email,
            recipient_name=name,
            subject=row.subject,
            variables=row.variables,
            attachment=None if file is None else Attachment(file.filename, file.media_type, file.content),
        )

    def send(self, item: DueEmail) -> Mapping[str, Any]:
        if "stored_file" in item.variables and item.variables["stored_file"] is not None:
            link = self._link_to(item.variables["stored_file"])
            item = replace(item, variables={**item.variables, **link})
        message, subject = build_message(item, self._renderer, self._transport.sender)
        self._transport.send(message)
        return {"subject": subject}

    def _link_to(self, stored_file: Mapping[str, str]) -> Mapping[str, str | None]:
        if self._sign_link is None:
            raise LinkUnavailable("This process has no storage to sign the email's link for. It will be retried.")
        try:
            link = self._sign_link(stored_file["key"], stored_file["filename"])
        except SeedTrustError as error:
            raise LinkUnavailable(f"The email's link could not be signed. {error}") from error
        expires_at = None if link.expires_at is None else link.expires_at.isoformat()
        return {"link": link.url, "link_expires_at": expires_at}

    def on_sent(self, session: Session, item: DueEmail, *, is_first: bool) -> None:
        if item.attachment is not None:
            session.execute(delete(NotificationAttachment).where(NotificationAttachment.notification_id == item.id))
        if is_first:
            resolve_alert(session, NOTIFICATIONS_FAILING, MAIL_SERVER)

    def find_outage(self, refused: Sequence[tuple[DueEmail, Exception]]) -> str | None:
        recipients = {item.recipient_email for item, _ in refused}
        speaks_of_relay = any(isinstance(error, EmailRejected) and error.is_of_relay for _, error in refused)
        if len(recipients) < MIN_RECIPIENTS_OF_OUTAGE and not speaks_of_relay:
            return None
        # Without the replies, which often contain a recipient's address.
        return (
            f"The mail server refused every email ({pluralize(len(refused), 'email')}, "
            f"{pluralize(len(recipients), 'recipient')}) and accepted none. Check that it relays for us: SMTP_HOST, "
            "SMTP_USERNAME, SMTP_PASSWORD and EMAIL_FROM. Its replies are in last_error of ops.notifications. Emails "
            "stay queued."
        )

    def on_withheld(self, session: Session, row: Notification, reason: Withheld) -> None:
        if not isinstance(reason, OutOfDate) and not KINDS[row.kind].must_reach:
            return
        open_alert(
            session,
            NOTIFICATIONS_FAILING,
            alert_subject(row.kind),
            "HIGH",
            f"Email {row.id} ({row.kind}) was not sent. {reason} Nobody else was notified: find out from its row in "
            "ops.notifications what it is about, and notify the person responsible. Then resolve this alert.",
        )

    def on_failed(self, session: Session, row_id: int) -> None:
        kind = session.scalars(select(Notification.kind).where(Notification.id == row_id)).one()
        # The alert leaves out the error, because a mail server's reply often contains the recipient's address.
        open_alert(
            session,
            NOTIFICATIONS_FAILING,
            alert_subject(kind),
            "HIGH",
            f"Email {row_id} ({kind}) failed and will not be retried. The reason is in last_error of its row in "
            "ops.notifications. Fix the cause, then run `seedtrust-ops notifications retry`.",
        )

    def on_outage(self, session: Session, error: str) -> None:
        sentences = []
        # At once: while an email about an alert waits, perhaps nobody knows of that alert.
        if count_queued_emails(session, kinds=[kind.name for kind in ALERT_KINDS]):
            sentences.append("Emails about alerts are waiting for it.")
        if waiting := count_queued_emails(session, min_age=NOTIFY_AFTER):
            # The number renews the alert while more and more emails wait.
            sentences.append(
                f"{pluralize(waiting, 'email')} waiting for more than {format_duration(NOTIFY_AFTER.seconds)}."
            )
        if sentences:
            open_alert(session, NOTIFICATIONS_FAILING, MAIL_SERVER, "HIGH", " ".join([error, *sentences]))


def message_id(dedupe_key: str, sender: str) -> str:
    """Return the Message-ID of the email with this key from this sender."""
    digest = hashlib.sha256(dedupe_key.encode()).hexdigest()[:40]
    return f"<{digest}@{parse_mailbox(sender)[1].rpartition('@')[2]}>"


def build_message(due_email: DueEmail, renderer: EmailRenderer, sender: str) -> tuple[Message, str]:
    """Return the email as a MIME message from `sender`, and its subject as the recipient reads it.

    Python's older email classes are used because the newer ones parse every header that they are given, which takes ten
    times as long.

    Raises:
        UnsendableEmail: if it can't be rendered, or its recipient has no usable address.
    """
    attachment = due_email.attachment
    rendered = renderer.render(
        due_email.kind,
        due_email.variables,
        recipient_name=due_email.recipient_name,
        attachment_name=attachment.filename if attachment else None,
        subject=due_email.subject,
    )
    message: Message = MIMEMultipart(
        "alternative", _subparts=[_text_part(rendered.text, "plain"), _text_part(rendered.html, "html")]
    )
    if attachment is not None:
        message = MIMEMultipart("mixed", _subparts=[message, _attachment_part(attachment)])
    # No text below contains a line break, so none can inject headers or recipients.
    message["From"] = format_mailbox("From", *parse_mailbox(sender))
    recipient_name = single_line(due_email.recipient_name, MAX_NAME_CHARS)
    message["To"] = format_mailbox("To", recipient_name, _address(due_email.recipient_email))
    message["Subject"] = format_text("Subject", rendered.subject)
    message["Date"] = formatdate()
    message["Message-ID"] = message_id(due_email.dedupe_key, sender)
    # Suppresses vacation notices: nobody reads replies to these emails.
    message["Auto-Submitted"] = "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    return message, rendered.subject


def _text_part(text: str, subtype: str) -> MIMENonMultipart:
    part = MIMENonMultipart("text", subtype)
    part.set_payload(text, _UTF8)
    return part


def _attachment_part(attachment: Attachment) -> Message:
    main, _, sub = attachment.media_type.partition("/")
    if main != "application":
        main, sub = "application", "octet-stream"
    part = MIMEApplication(attachment.content, sub)
    name = single_line(attachment.filename)
    part.add_header("Content-Disposition", "attachment", filename=name if name.isascii() else ("utf-8", "", name))
    return part


def _address(text: str) -> str:
    try:
        return to_ascii_address(text)
    except InvalidEmailAddress as error:
        raise UnsendableEmail(
            f"The recipient's email address {shorten(text.strip(), MAX_NAME_CHARS)!r} can't be used: {error}. Correct "
            "it, then run `seedtrust-ops notifications retry`."
        ) from None
