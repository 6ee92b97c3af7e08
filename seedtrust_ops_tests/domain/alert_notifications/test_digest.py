"""A digest is due once a day in the office's time zone, also on days when daylight saving time changes."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.digest import MAX_LISTED_ALERTS, digest_day, notify_digest
from seedtrust_ops.tables import Alert, Notification

OFFICE = ZoneInfo("America/New_York")


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


def test_digest_is_sent_once_and_later_alerts_wait_for_the_next_day(
    sessions: sessionmaker[Session],
) -> None:
    def add_alert(subject: str) -> None:
        with sessions.begin() as session:
            session.add(Alert(rule="error_spike", subject=subject, severity="MEDIUM", detail="It failed."))

    def digest(day: int) -> int:
        with sessions.begin() as session:
            return notify_digest(session, ["a@b.test", "c@d.test"], date(2026, 3, day))

    add_alert("early")
    assert [digest(3), digest(3)] == [2, 0]
    add_alert("late")
    assert digest(3) == 0
    with sessions() as session:
        assert session.scalars(select(Alert.notified_at).where(Alert.subject == "late")).one() is None
    assert digest(4) == 2
    with sessions() as session:
        emails = session.scalars(select(Notification).order_by(Notification.id)).all()
    listed = [
        ([alert["subject"] for alert in email.variables["opened"]], len(email.variables["still_open"]))
        for email in emails
    ]
    assert listed == [(["early"], 0), (["early"], 0), (["late"], 1), (["late"], 1)]


def test_digest_counts_alerts_beyond_the_listed_maximum(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.add_all(Alert(rule="r", subject=f"{number}", severity="LOW") for number in range(MAX_LISTED_ALERTS + 7))
        session.flush()
        assert notify_digest(session, ["a@b.test"], date(2026, 3, 3)) == 1
        variables = session.scalars(select(Notification.variables)).one()
    assert (len(variables["opened"]), variables["left_out"]) == (MAX_LISTED_ALERTS, 7)
