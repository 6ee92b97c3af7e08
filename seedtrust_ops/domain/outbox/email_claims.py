"""Takes letters that are due, so that no two deliverers ever hold one at once, and records what became of each.

A claim is a token and a time: whoever dies with letters in hand leaves them to the next deliverer as soon as that
time has passed, and whoever comes back from a long sleep finds that they hold nothing any more.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS, KINDS
from seedtrust_ops.domain.outbox.email_store import Attachment, is_due
from seedtrust_ops.tables import Notification, NotificationAttachment, User

FAILING = "notifications_failing"
"""The rule of the alerts about letters."""
ALERTS = frozenset(kind.name for kind in ALERT_KINDS)
INACTIVE = "The recipient is not an active user, and inactive users get nothing."


@dataclass(frozen=True)
class Patience:
    """How letters are tried again.

    `hold` must be longer than one letter can take to be handed in: for so long nobody else tries it. With 30 seconds
    for each answer, a connection that is found dead, made anew and used takes 7 minutes at the very most.
    """

    attempts: int = 5
    first_pause: timedelta = timedelta(minutes=1)
    growth: int = 6
    hold: timedelta = timedelta(minutes=10)
    group: int = 50

    def pause(self, attempts: int) -> timedelta:
        """Return how long to wait after so many attempts: 1 minute, 6, 36, then 3.6 hours."""
        return self.first_pause * int(self.growth ** (attempts - 1))

    def about(self, kind: str) -> "Patience":
        """Return the patience with letters of a kind: those about alerts are tried for most of a day, and sooner.

        Their pauses are half a minute, one, two, four and so on, so that people hear of an outage soon after it.
        """
        if kind not in ALERTS:
            return self
        return replace(self, attempts=12, first_pause=self.first_pause / 2, growth=2)


@dataclass(frozen=True)
class Claim:
    """Letters that this deliverer alone may try, for a while."""

    token: str
    letter_ids: Sequence[int]


class Passed(Enum):
    """Why a claimed letter is not handed in."""

    NOT_OURS = "somebody else holds it, or has sent it"
    WITHHELD = "its recipient is not active any more"
    GIVEN_UP = "deliverers that died have used up its attempts"


@dataclass(frozen=True)
class DueLetter:
    """A letter whose attempt has been counted, with all that is needed to write it out."""

    id: int
    dedupe_key: str
    kind: str
    attempts: int
    recipient_email: str
    recipient_name: str
    subject: str
    variables: Mapping[str, Any]
    attachment: Attachment | None


def claim_letters(session: Session, patience: Patience, kinds: Sequence[str] | None = None) -> Claim | None:
    """Take a group of letters of the most urgent kind that has any due; None where there is none.

    Args:
        session: on the application's database.
        patience: how many are taken, and how long they are nobody else's.
        kinds: those to take from; None stands for all, unknown ones last.
    """
    known = [Notification.kind == kind for kind in (KINDS if kinds is None else kinds)]
    for of_kind in known if kinds is not None else (*known, Notification.kind.not_in(list(KINDS))):
        ids = session.scalars(
            select(Notification.id)
            .where(*is_due(), of_kind)
            .order_by(Notification.next_attempt_at, Notification.id)
            .limit(patience.group)
            .with_for_update(skip_locked=True)
        ).all()
        if ids:
            claim = Claim(secrets.token_hex(8), ids)
            session.execute(
                update(Notification)
                .where(Notification.id.in_(ids))
                .values(claim_token=claim.token, next_attempt_at=func.now() + patience.hold)
            )
            return claim
    return None


def start_attempt(session: Session, claim: Claim, letter_id: int, patience: Patience) -> DueLetter | Passed:
    """Count an attempt at one claimed letter and return it; the commit must come before the letter leaves.

    Where it must not be sent, return why not; that it was withheld or given up is recorded here.
    """
    mine = session.execute(
        select(Notification, User.full_name, User.is_active, NotificationAttachment)
        .outerjoin(User, User.id == Notification.recipient_id)
        .outerjoin(NotificationAttachment, NotificationAttachment.notification_id == Notification.id)
        .where(Notification.id == letter_id, Notification.claim_token == claim.token, Notification.status == "queued")
        .with_for_update(of=Notification)
    ).one_or_none()
    if mine is None:
        return Passed.NOT_OURS
    row, full_name, is_active, attachment = mine
    if row.recipient_id is not None and not is_active:
        record_failed(session, row.id, row.kind, INACTIVE, alert=False)
        return Passed.WITHHELD
    if row.attempts >= patience.about(row.kind).attempts:
        record_failed(session, row.id, row.kind, f"It was tried {row.attempts} times, and no try came to an end.")
        return Passed.GIVEN_UP
    row.attempts += 1
    row.attempted_at = func.now()
    row.next_attempt_at = func.now() + patience.hold
    session.flush()
    return DueLetter(
        id=row.id,
        dedupe_key=row.dedupe_key,
        kind=row.kind,
        attempts=row.attempts,
        recipient_email=row.recipient_email,
        recipient_name=full_name or "",
        subject=row.subject,
        variables=row.variables,
        attachment=_attachment_of(attachment),
    )


def _attachment_of(row: NotificationAttachment | None) -> Attachment | None:
    return None if row is None else Attachment(row.filename, row.media_type, row.content)


def record_sent(session: Session, letter: DueLetter, subject: str) -> None:
    """Record that the letter is the mail server's, whoever holds it by now, and drop its file."""
    session.execute(
        update(Notification)
        .where(Notification.id == letter.id)
        .values(status="sent", sent_at=func.now(), subject=subject, claim_token=None, last_error=None)
    )
    if letter.attachment is not None:
        session.execute(delete(NotificationAttachment).where(NotificationAttachment.notification_id == letter.id))


def record_postponed(session: Session, claim: Claim, letter: DueLetter, trouble: str, patience: Patience) -> None:
    """Record that the attempt failed and when the next may be; after the last one the letter has failed."""
    patience = patience.about(letter.kind)
    if letter.attempts >= patience.attempts:
        record_failed(session, letter.id, letter.kind, f"{trouble} That was attempt {letter.attempts}, the last.")
        return
    session.execute(
        update(Notification)
        .where(Notification.id == letter.id, Notification.claim_token == claim.token, Notification.status == "queued")
        .values(claim_token=None, last_error=trouble, next_attempt_at=func.now() + patience.pause(letter.attempts))
    )


def record_failed(session: Session, letter_id: int, kind: str, trouble: str, *, alert: bool = True) -> None:
    """Record that the letter will not be sent, and open the alert of its kind unless told not to."""
    failed = session.execute(
        update(Notification)
        .where(Notification.id == letter_id, Notification.status == "queued")
        .values(status="failed", claim_token=None, last_error=trouble)
        .returning(Notification.id)
    ).first()
    if failed is not None and alert:
        # Not the trouble itself: a mail server's words often hold the recipient's address.
        open_alert(
            session,
            FAILING,
            alert_subject(kind),
            "HIGH",
            f"Letter {letter_id} ({kind}) was not sent; its row in ops.notifications says why. Mend that, then "
            "`seedtrust-ops notifications retry`.",
        )


def release(session: Session, claim: Claim) -> None:
    """Give back, untried, what is left of a claim."""
    session.execute(
        update(Notification)
        .where(Notification.claim_token == claim.token, Notification.status == "queued")
        .values(claim_token=None, next_attempt_at=func.now())
    )


def queue_again(session: Session) -> int:
    """Give every failed letter all its attempts anew, unless its recipient is inactive; return how many.

    The alerts about them are resolved: who calls this has seen to what they were about.
    """
    active = select(User.id).where(User.id == Notification.recipient_id, User.is_active)
    again = session.scalars(
        update(Notification)
        .where(Notification.status == "failed", or_(Notification.recipient_id.is_(None), active.exists()))
        .values(status="queued", attempts=0, next_attempt_at=func.now(), claim_token=None)
        .returning(Notification.kind)
    ).all()
    for kind in set(again):
        resolve_alert(session, FAILING, alert_subject(kind))
    return len(again)


def alert_subject(kind: str) -> str:
    """Return the subject of the alert that letters of this kind were not sent."""
    return f"{kind} letters"
