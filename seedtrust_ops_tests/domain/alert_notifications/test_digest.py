"""A digest is due once a day in the office's time zone, also on days when daylight saving time changes."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func as sql
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.digest import (
    MAX_LISTED_ALERTS,
    digest_day,
    enqueue_digest,
    record_delivered_digests,
)
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.tables import Notification

OFFICE = ZoneInfo("America/New_York")
ADDRESSES = ("a@b.test", "c@d.test")


@pytest.mark.parametrize(
    ("utc", "hour", "day"),
    [
        ("2026-03-03T12:59:59", 8, None),
        ("2026-03-03T13:00:00", 8, date(2026, 3, 3)),
        # Still March 3 in the office although March 4 in UTC; midnight ends the day.
        ("2026-03-04T04:59:59", 8, date(2026, 3, 3)),
        ("2026-03-04T05:00:00", 8, None),
        # Daylight saving begins on March 8 and ends on November 1.
        ("2026-03-08T11:59:59", 8, None),
        ("2026-03-08T12:00:00", 8, date(2026, 3, 8)),
        ("2026-11-01T12:59:59", 8, None),
        ("2026-11-01T13:00:00", 8, date(2026, 11, 1)),
        # On March 8 there is no 02:00; on November 1, 01:00 happens twice.
        ("2026-03-08T06:59:59", 2, None),
        ("2026-03-08T07:00:00", 2, date(2026, 3, 8)),
        ("2026-11-01T05:00:00", 1, date(2026, 11, 1)),
        ("2026-11-01T06:00:00", 1, date(2026, 11, 1)),
        ("2026-03-03T05:00:00", 0, date(2026, 3, 3)),
    ],
)
def test_digest_is_due_from_its_hour_until_midnight(utc: str, hour: int, day: date | None) -> None:
    assert digest_day(datetime.fromisoformat(utc).replace(tzinfo=UTC), OFFICE, hour) == day


@pytest.fixture
def digests(sessions: sessionmaker[Session]) -> "Digests":
    return Digests(sessions)


@dataclass
class Digests:
    """Queues and delivers the digests of days in March 2026."""

    sessions: sessionmaker[Session]

    def add_alerts(self, *subjects: str) -> None:
        with self.sessions.begin() as session:
            for subject in subjects:
                open_alert(session, "error_spike", subject, "MEDIUM", "It failed.")

    def enqueue(self, day: int) -> int:
        with self.sessions.begin() as session:
            return enqueue_digest(session, ADDRESSES, date(2026, 3, day))

    def deliver(self, day: int, status: str = "sent") -> None:
        """Let the mail server accept what is queued, or whatever `status` says, and record it."""
        with self.sessions.begin() as session:
            sent_at = sql.now() if status == "sent" else None
            session.execute(
                update(Notification).where(Notification.status == "queued").values(status=status, sent_at=sent_at)
            )
            record_delivered_digests(session, emails=ADDRESSES, now=datetime(2026, 3, day, 12, tzinfo=UTC))

    def listed(self) -> list[tuple[list[str], int]]:
        """The new alerts and the number of those still open in each digest to the first address."""
        with self.sessions() as session:
            emails = session.scalars(
                select(Notification.variables)
                .where(Notification.recipient_email == ADDRESSES[0])
                .order_by(Notification.id)
            )
            return [([alert["subject"] for alert in one["opened"]], len(one["still_open"])) for one in emails]


def test_digest_is_sent_once_and_later_alerts_wait_for_the_next_day(digests: Digests) -> None:
    digests.add_alerts("early")
    assert [digests.enqueue(3), digests.enqueue(3)] == [2, 0]
    digests.add_alerts("late")
    assert digests.enqueue(3) == 0
    digests.deliver(3)
    assert digests.enqueue(4) == 2
    assert digests.listed() == [(["early"], 0), (["late"], 1)]


def test_alert_is_new_until_a_digest_that_lists_it_was_sent(digests: Digests) -> None:
    digests.add_alerts("first")
    digests.enqueue(3)
    digests.deliver(3, status="failed")
    digests.enqueue(4)
    digests.deliver(4)
    digests.enqueue(5)
    assert digests.listed() == [(["first"], 0), (["first"], 0), ([], 1)]


def test_digest_counts_what_it_does_not_list_which_is_new_tomorrow(digests: Digests) -> None:
    digests.add_alerts(*(f"job {number}" for number in range(MAX_LISTED_ALERTS + 7)))
    digests.enqueue(3)
    digests.deliver(3)
    with digests.sessions() as session:
        assert session.scalars(select(Notification.variables)).first()["left_out"] == 7
    digests.enqueue(4)
    assert [(len(new), still_open) for new, still_open in digests.listed()] == [(MAX_LISTED_ALERTS, 0), (7, 50)]
