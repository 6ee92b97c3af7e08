"""What email and PostHog owe people is queued once, the worst alerts first, whether or not anything is delivered."""

from datetime import UTC, datetime

from sqlalchemy import func as sql
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.notifier import MAX_ALERTS_PER_TICK, enqueue_owed
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.tables import Notification


def test_undelivered_notifications_do_not_hold_back_the_next_ones(sessions: sessionmaker[Session]) -> None:
    number = 2 * MAX_ALERTS_PER_TICK + 1
    with sessions.begin() as session:
        for one in range(number):
            open_alert(session, "transfer_ambiguous", f"transaction {one}", "HIGH", "It is ambiguous.")
        open_alert(session, "ledger_mismatch", "accounts", "CRITICAL", "They differ.")
    queued = []
    for _ in range(4):
        with sessions.begin() as session:
            unnotified = enqueue_owed(session, emails=["a@b.test"], posthog=True, now=datetime.now(UTC))
            assert len(unnotified) == number + 1
            queued.append(session.scalar(select(sql.count()).select_from(Notification)))
    assert queued == [MAX_ALERTS_PER_TICK, 2 * MAX_ALERTS_PER_TICK, number + 1, number + 1]
    with sessions() as session:
        first = session.scalars(select(Notification).order_by(Notification.id).limit(1)).one()
    assert first.variables["rule"] == "ledger_mismatch"
