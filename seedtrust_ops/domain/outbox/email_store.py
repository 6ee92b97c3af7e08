"""The outbox: letters are rows, written in the transaction that causes them.

A letter's `dedupe_key` names what it is about and for whom, so that no letter is written twice. Whoever writes
thousands at once may insert into `ops.notifications` directly: dedupe_key, kind, recipient_id, recipient_email,
variables, and subject (empty: the kind's own) are all that delivery needs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.sql_arrays import array_table
from seedtrust_ops.tables import Notification, NotificationAttachment


@dataclass(frozen=True)
class Attachment:
    """A file that goes with one letter; it is kept in the database until the letter is sent."""

    filename: str
    media_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Email:
    """One letter to one active user; `variables` are what `kinds` says that its template needs.

    `recipient_id` is None where the recipient is no user (an address of `ALERT_EMAILS`). An empty `subject`
    stands for the kind's own.
    """

    dedupe_key: str
    kind: str
    recipient_id: int | None
    recipient_email: str
    subject: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    attachment: Attachment | None = None


def enqueue_emails(session: Session, letters: Sequence[Email]) -> int:
    """Put `letters` into the outbox and return how many were new."""
    if not letters:
        return 0
    written = array_table(
        "letters",
        [
            ("dedupe_key", Text()),
            ("kind", Text()),
            ("recipient_id", BigInteger()),
            ("recipient_email", Text()),
            ("subject", Text()),
            ("variables", Text()),
        ],
        [
            (one.dedupe_key, one.kind, one.recipient_id, one.recipient_email, one.subject, json.dumps(one.variables))
            for one in letters
        ],
    )
    columns = written.c
    new = session.execute(
        insert(Notification)
        .from_select(
            ["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"],
            select(
                columns.dedupe_key,
                columns.kind,
                columns.recipient_id,
                columns.recipient_email,
                columns.subject,
                cast(columns.variables, JSONB),
            ),
        )
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.dedupe_key, Notification.id)
    ).all()
    ids = {row.dedupe_key: row.id for row in new}
    for letter in letters:
        # The first of several with one key is the one that was written.
        notification_id = ids.pop(letter.dedupe_key, None)
        if notification_id is not None and letter.attachment is not None:
            session.add(
                NotificationAttachment(
                    notification_id=notification_id,
                    filename=letter.attachment.filename,
                    media_type=letter.attachment.media_type,
                    content=letter.attachment.content,
                )
            )
    session.flush()
    return len(new)


def due_letters(session: Session, kinds: Sequence[str] | None = None) -> int:
    """Return how many letters (of `kinds`; None: of all) wait to be sent now: new ones, and those after a pause."""
    of_kinds = () if kinds is None else (Notification.kind.in_(kinds),)
    return session.scalar(select(func.count()).select_from(Notification).where(*is_due(), *of_kinds)) or 0


def is_due() -> tuple[Any, ...]:
    """Return the conditions of a letter that may be tried now."""
    return Notification.status == "queued", Notification.next_attempt_at <= func.now()


def has_waited(session: Session, long: timedelta) -> bool:
    """Return whether a letter that is still to be sent was written so long ago."""
    overdue = select(Notification.id).where(
        Notification.status == "queued", Notification.created_at <= func.now() - long
    )
    return bool(session.scalar(select(overdue.exists())))
