"""Shows people the emails of the outbox: which there are, and what one of them says.

An email's text is not stored. It is rendered again from its variables, by the renderer that cut, escaped and disarmed
what people typed when it was sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.notifications.kind_registry import MAX_NAME_CHARS, MAX_SENTENCE_CHARS
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnsendableEmail
from seedtrust_ops.errors import InputError
from seedtrust_ops.formatting import single_line
from seedtrust_ops.tables import Notification, NotificationAttachment, User

LINK = "(The link is signed on delivery and not stored.)"
ATTACHMENT = "a file (its name is not kept after delivery)"


class UnknownNotification(InputError):
    """The outbox has no email of that number."""


@dataclass(frozen=True)
class ListedEmail:
    """An email of the outbox without its text; every text is one line, and cut.

    `subject` is empty until it is sent, unless the code that queued it chose one. `last_error` is why it was not sent.
    """

    id: int
    status: str
    kind: str
    recipient_email: str
    subject: str
    attempts: int
    created_at: datetime
    sent_at: datetime | None
    last_error: str


def list_emails(session: Session, *, limit: int, status: str | None = None) -> Sequence[ListedEmail]:
    """Return the newest emails, newest first; only those with `status` if it is given."""
    query = select(Notification).order_by(Notification.id.desc()).limit(limit)
    if status is not None:
        query = query.where(Notification.status == status)
    return [_summarize(row) for row in session.scalars(query)]


def read_email(session: Session, email_id: int, renderer: EmailRenderer) -> tuple[ListedEmail, str]:
    """Return an email and its plain text, or why it has none.

    Raises:
        UnknownNotification: if there is no such email.
    """
    row = session.get(Notification, email_id)
    if row is None:
        raise UnknownNotification(
            f"There is no email {email_id}. `seedtrust-ops notifications list` shows which there are."
        )
    name = session.scalars(select(User.full_name).where(User.id == row.recipient_id)).one_or_none()
    filename = session.scalars(
        select(NotificationAttachment.filename).where(NotificationAttachment.notification_id == email_id)
    ).one_or_none()
    has_link = row.variables.get("stored_file") is not None
    try:
        rendered = renderer.render(
            row.kind,
            row.variables | ({"link": LINK, "link_expires_at": None} if has_link else {}),
            recipient_name=name or "",
            attachment_name=filename or ATTACHMENT,
            subject=row.subject,
        )
    except UnsendableEmail as error:
        return _summarize(row), str(error)
    return _summarize(row, subject=rendered.subject), rendered.text


def _summarize(row: Notification, *, subject: str | None = None) -> ListedEmail:
    return ListedEmail(
        id=row.id,
        status=row.status,
        kind=single_line(row.kind, MAX_NAME_CHARS),
        recipient_email=single_line(row.recipient_email, MAX_NAME_CHARS),
        subject=single_line(row.subject if subject is None else subject, MAX_NAME_CHARS),
        attempts=row.attempts,
        created_at=row.created_at,
        sent_at=row.sent_at,
        last_error=single_line(row.last_error or "", MAX_SENTENCE_CHARS),
    )
