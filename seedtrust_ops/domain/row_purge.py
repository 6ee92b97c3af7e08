"""Deletes what was told to others and needs no record: old events of the outbox, and files of letters that failed.

JobRun, the attempts at transfers, the ledger, alerts and the letters themselves are kept for ever.
"""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from seedtrust_ops.tables import JobRun, Notification, NotificationAttachment, OutgoingEvent

ROWS_A_TIME = 5_000


def delete_old_events(session: Session, before: datetime) -> int:
    """Delete up to ROWS_A_TIME events that were sent or given up before `before` (aware); return how many.

    The newest of each destination stays: what is told next may be told as what comes after it.
    """
    newest = select(func.max(OutgoingEvent.id)).group_by(OutgoingEvent.destination)
    old = (
        select(OutgoingEvent.id)
        .where(
            func.coalesce(OutgoingEvent.sent_at, OutgoingEvent.abandoned_at) < before, OutgoingEvent.id.not_in(newest)
        )
        .limit(ROWS_A_TIME)
    )
    return len(
        session.execute(delete(OutgoingEvent).where(OutgoingEvent.id.in_(old)).returning(OutgoingEvent.id)).all()
    )


def delete_old_attachments(session: Session, before: datetime) -> int:
    """Delete up to ROWS_A_TIME files of letters that failed and were written before `before`; return how many.

    Whoever asked for a report was to get it then; sent again so late, the letter goes without.
    """
    old = (
        select(NotificationAttachment.notification_id)
        .join(Notification, Notification.id == NotificationAttachment.notification_id)
        .where(Notification.status == "failed", Notification.created_at < before)
        .limit(ROWS_A_TIME)
    )
    gone = delete(NotificationAttachment).where(NotificationAttachment.notification_id.in_(old))
    return len(session.execute(gone.returning(NotificationAttachment.notification_id)).all())


def ended_runs(session: Session, run_ids: list[str]) -> set[str]:
    """Return those of the runs whose end JobRun has."""
    query = select(JobRun.run_id).where(JobRun.run_id == func.any(run_ids), JobRun.resolution.is_not(None))
    return set(session.scalars(query))
