"""Purges old outgoing events and attachments of failed emails, and finds the runs whose Dagster data may be purged.

JobRun, transfer attempts, the ledger, alerts and the notifications themselves are kept forever.
See docs/decisions/retention.md.
"""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import JobRun, Notification, NotificationAttachment, OutgoingEvent

ROWS_PER_BATCH = 5_000


def purge_old_events(session: Session, before: datetime) -> int:
    """Delete up to ROWS_PER_BATCH events that were sent or abandoned before `before` (aware); return the number.

    The newest event of each destination stays, because later events may be ordered after it.
    """
    newest = select(func.max(OutgoingEvent.id)).group_by(OutgoingEvent.destination)
    old = (
        select(OutgoingEvent.id)
        .where(
            func.coalesce(OutgoingEvent.sent_at, OutgoingEvent.abandoned_at) < before, OutgoingEvent.id.not_in(newest)
        )
        .limit(ROWS_PER_BATCH)
    )
    return len(
        session.execute(delete(OutgoingEvent).where(OutgoingEvent.id.in_(old)).returning(OutgoingEvent.id)).all()
    )


def purge_old_attachments(session: Session, before: datetime) -> int:
    """Delete up to ROWS_PER_BATCH attachments of failed emails created before `before` (aware); return the number.

    A report that old is no longer useful. If the email is sent again, it goes without the attachment.
    """
    old = (
        select(NotificationAttachment.notification_id)
        .join(Notification, Notification.id == NotificationAttachment.notification_id)
        .where(Notification.status == "failed", Notification.created_at < before)
        .limit(ROWS_PER_BATCH)
    )
    statement = delete(NotificationAttachment).where(NotificationAttachment.notification_id.in_(old))
    return len(session.execute(statement.returning(NotificationAttachment.notification_id)).all())


def find_ended_runs(session: Session, run_ids: list[str]) -> set[str]:
    """Return the runs among `run_ids` that have a final status in JobRun."""
    query = select(JobRun.run_id).where(JobRun.run_id == func.any(run_ids), JobRun.resolution.is_not(None))
    return set(session.scalars(query))
