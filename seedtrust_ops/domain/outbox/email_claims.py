"""Claims due emails, so that two dispatchers never hold the same one, and records the result of each attempt.

A claim is a token and a time. If a dispatcher crashes, another one may claim its emails once that time has passed; a
dispatcher that was suspended past it finds that it no longer holds any.
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
from seedtrust_ops.domain.notifications.kind_registry import kind_names_by_urgency
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS
from seedtrust_ops.domain.outbox.email_store import Attachment, is_due
from seedtrust_ops.tables import Notification, NotificationAttachment, User

NOTIFICATIONS_FAILING = "notifications_failing"
"""The rule of the alerts about emails and events that are not sent."""
ALERT_KIND_NAMES = frozenset(kind.name for kind in ALERT_KINDS)
INACTIVE_RECIPIENT = "The recipient is not an active user; inactive users receive no email."


@dataclass(frozen=True)
class EmailRetryPolicy:
    """How often and how soon a failed attempt is repeated.

    `claim_duration` must be longer than sending one email can take, because no other dispatcher tries the email
    during that time. With a timeout of 30 seconds per response, an email sent over a broken connection that has to be
    reopened takes at most 7 minutes.
    """

    max_attempts: int = 5
    first_delay: timedelta = timedelta(minutes=1)
    backoff_factor: int = 6
    claim_duration: timedelta = timedelta(minutes=10)
    batch_size: int = 50

    def delay(self, attempts: int) -> timedelta:
        """Return the delay after this many attempts: 1 minute, 6 minutes, 36 minutes, 3.6 hours."""
        return self.first_delay * int(self.backoff_factor ** (attempts - 1))

    def for_kind(self, kind: str) -> "EmailRetryPolicy":
        """Return the policy for emails of this kind: those about alerts are retried sooner, for most of a day.

        Their delays are 30 seconds, 1, 2, 4 minutes and so on, so that people learn of an outage soon after it ends.
        """
        if kind not in ALERT_KIND_NAMES:
            return self
        return replace(self, max_attempts=12, first_delay=self.first_delay / 2, backoff_factor=2)


@dataclass(frozen=True)
class Claim:
    """Emails that only this dispatcher may try until the claim expires."""

    token: str
    email_ids: Sequence[int]


class NotSentReason(Enum):
    """Why a claimed email is not sent."""

    CLAIM_LOST = "another dispatcher has claimed or sent it"
    INACTIVE_RECIPIENT = "its recipient is no longer an active user"
    ATTEMPTS_EXHAUSTED = "dispatchers that crashed used up its attempts"


@dataclass(frozen=True)
class DueEmail:
    """An email whose attempt has been counted, with everything that is needed to render and send it."""

    id: int
    dedupe_key: str
    kind: str
    attempts: int
    recipient_email: str
    recipient_name: str
    subject: str
    variables: Mapping[str, Any]
    attachment: Attachment | None


def claim_emails(session: Session, retry_policy: EmailRetryPolicy, kinds: Sequence[str] | None = None) -> Claim | None:
    """Claim a batch of due emails of the most urgent kind that has any; return None if none is due.

    An email of a kind that this process does not know stays queued for a release that does.

    Args:
        session: on the application's database.
        retry_policy: its `batch_size` limits the claim, its `claim_duration` is how long the claim lasts.
        kinds: the kinds to claim from; None means all that this process knows.
    """
    for kind in kind_names_by_urgency() if kinds is None else kinds:
        ids = session.scalars(
            select(Notification.id)
            .where(*is_due(), Notification.kind == kind)
            .order_by(Notification.next_attempt_at, Notification.id)
            .limit(retry_policy.batch_size)
            .with_for_update(skip_locked=True)
        ).all()
        if ids:
            claim = Claim(secrets.token_hex(8), ids)
            session.execute(
                update(Notification)
                .where(Notification.id.in_(ids))
                .values(claim_token=claim.token, next_attempt_at=func.now() + retry_policy.claim_duration)
            )
            return claim
    return None


def start_attempt(
    session: Session, claim: Claim, email_id: int, retry_policy: EmailRetryPolicy
) -> DueEmail | NotSentReason:
    """Count an attempt at one claimed email and return the email; commit before sending it.

    If it must not be sent, return the reason; an inactive recipient or exhausted attempts are recorded here.
    """
    claimed = session.execute(
        select(Notification, User.full_name, User.is_active, NotificationAttachment)
        .outerjoin(User, User.id == Notification.recipient_id)
        .outerjoin(NotificationAttachment, NotificationAttachment.notification_id == Notification.id)
        .where(Notification.id == email_id, Notification.claim_token == claim.token, Notification.status == "queued")
        .with_for_update(of=Notification)
    ).one_or_none()
    if claimed is None:
        return NotSentReason.CLAIM_LOST
    row, full_name, is_active, attachment = claimed
    if row.recipient_id is not None and not is_active:
        record_failed(session, row.id, row.kind, INACTIVE_RECIPIENT, alert=False)
        return NotSentReason.INACTIVE_RECIPIENT
    if row.attempts >= retry_policy.for_kind(row.kind).max_attempts:
        record_failed(session, row.id, row.kind, f"All {row.attempts} attempts were interrupted before a result.")
        return NotSentReason.ATTEMPTS_EXHAUSTED
    row.attempts += 1
    row.attempted_at = func.now()
    row.next_attempt_at = func.now() + retry_policy.claim_duration
    session.flush()
    return DueEmail(
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


def record_sent(session: Session, email: DueEmail, subject: str) -> None:
    """Record that the mail server accepted the email, even if the claim was lost since, and delete its attachment."""
    session.execute(
        update(Notification)
        .where(Notification.id == email.id)
        .values(status="sent", sent_at=func.now(), subject=subject, claim_token=None, last_error=None)
    )
    if email.attachment is not None:
        session.execute(delete(NotificationAttachment).where(NotificationAttachment.notification_id == email.id))


def record_deferred(
    session: Session, claim: Claim, email: DueEmail, error: str, retry_policy: EmailRetryPolicy
) -> None:
    """Record that the attempt failed and schedule the next one; after the last attempt, record the email as failed."""
    retry_policy = retry_policy.for_kind(email.kind)
    if email.attempts >= retry_policy.max_attempts:
        record_failed(session, email.id, email.kind, f"{error} This was attempt {email.attempts}, the last one.")
        return
    session.execute(
        update(Notification)
        .where(Notification.id == email.id, Notification.claim_token == claim.token, Notification.status == "queued")
        .values(claim_token=None, last_error=error, next_attempt_at=func.now() + retry_policy.delay(email.attempts))
    )


def record_failed(session: Session, email_id: int, kind: str, error: str, *, alert: bool = True) -> None:
    """Record that the email has failed permanently, and open the alert for its kind unless `alert` is False."""
    failed = session.execute(
        update(Notification)
        .where(Notification.id == email_id, Notification.status == "queued")
        .values(status="failed", claim_token=None, last_error=error)
        .returning(Notification.id)
    ).first()
    if failed is not None and alert:
        # The alert leaves out the error, because a mail server's reply often contains the recipient's address.
        open_alert(
            session,
            NOTIFICATIONS_FAILING,
            alert_subject(kind),
            "HIGH",
            f"Email {email_id} ({kind}) failed and will not be retried. The reason is in last_error of its row in "
            "ops.notifications. Fix the cause, then run `seedtrust-ops notifications retry`.",
        )


def release_claim(session: Session, claim: Claim) -> None:
    """Release the emails of a claim that were not tried; they are due at once."""
    session.execute(
        update(Notification)
        .where(Notification.claim_token == claim.token, Notification.status == "queued")
        .values(claim_token=None, next_attempt_at=func.now())
    )


def requeue_failed(session: Session) -> int:
    """Requeue every failed email with all its attempts, unless its recipient is inactive; return how many.

    It also resolves the alerts about them: the caller has dealt with their cause.
    """
    active = select(User.id).where(User.id == Notification.recipient_id, User.is_active)
    requeued_kinds = session.scalars(
        update(Notification)
        .where(Notification.status == "failed", or_(Notification.recipient_id.is_(None), active.exists()))
        .values(status="queued", attempts=0, next_attempt_at=func.now(), claim_token=None)
        .returning(Notification.kind)
    ).all()
    for kind in set(requeued_kinds):
        resolve_alert(session, NOTIFICATIONS_FAILING, alert_subject(kind))
    return len(requeued_kinds)


def alert_subject(kind: str) -> str:
    """Return the subject of the alert about failed emails of this kind."""
    return f"{kind} emails"
