"""A digest is due once a day by the office's wall clock, whatever daylight saving does to that day."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.digest import LISTED, digest_day, notify_digest
from seedtrust_ops.tables import Alert, Notification

OFFICE = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("utc", "hour", "day"),
    [
        ("2026-03-03T12:59:59", 8, None),
        ("2026-03-03T13:00:00", 8, date(2026, 3, 3)),
        # Still the third in the office, although the fourth in UTC; and midnight ends it.
        ("2026-03-04T04:59:59", 8, date(2026, 3, 3)),
        ("2026-03-04T05:00:00", 8, None),
        # Daylight saving begins on March 8 and ends on November 1.
        ("2026-03-08T11:59:59", 8, None),
        ("2026-03-08T12:00:00", 8, date(2026, 3, 8)),
        ("2026-11-01T12:59:59", 8, None),
        ("2026-11-01T13:00:00", 8, date(2026, 11, 1)),
        # 02:00 does not come on the first of them, and 01:00 comes twice on the second.
        ("2026-03-08T06:59:59", 2, None),
        ("2026-03-08T07:00:00", 2, date(2026, 3, 8)),
        ("2026-11-01T05:00:00", 1, date(2026, 11, 1)),
        ("2026-11-01T06:00:00", 1, date(2026, 11, 1)),
        ("2026-03-03T05:00:00", 0, date(2026, 3, 3)),
    ],
)
def test_day_is_due_from_its_hour_to_its_midnight(utc: str, hour: int, day: date | None) -> None:
    assert digest_day(datetime.fromisoformat(utc).replace(tzinfo=UTC), OFFICE, hour) == day


def test_day_that_was_written_is_written_no_more_and_its_late_alerts_are_the_next_day_s(
    sessions: sessionmaker[Session],
) -> None:
    def write(subject: str) -> None:
        with sessions.begin() as session:
            session.add(Alert(rule="error_spike", subject=subject, severity="MEDIUM", detail="It failed."))

    def digest(day: int) -> int:
        with sessions.begin() as session:
            return notify_digest(session, ["a@b.test", "c@d.test"], date(2026, 3, day))

    write("early")
    assert [digest(3), digest(3)] == [2, 0]
    write("late")
    assert digest(3) == 0
    with sessions() as session:
        assert session.scalars(select(Alert.notified_at).where(Alert.subject == "late")).one() is None
    assert digest(4) == 2
    with sessions() as session:
        letters = session.scalars(select(Notification).order_by(Notification.id)).all()
    listed = [([one["subject"] for one in x.variables["opened"]], len(x.variables["still_open"])) for x in letters]
    assert listed == [(["early"], 0), (["early"], 0), (["late"], 1), (["late"], 1)]


def test_more_alerts_than_a_letter_lists_are_counted(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.add_all(Alert(rule="r", subject=f"{number}", severity="LOW") for number in range(LISTED + 7))
        session.flush()
        assert notify_digest(session, ["a@b.test"], date(2026, 3, 3)) == 1
        variables = session.scalars(select(Notification.variables)).one()
    assert (len(variables["opened"]), variables["left_out"]) == (LISTED, 7)
