"""Settlement deadlines: by method, around the cutoff, holidays and clock changes, and what is overdue by them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtrust_ops.domain.transfers.settlement_deadlines import EASTERN, latest_overdue, settlement_deadline, settles_on

# Eastern times. December 2 to 4, 2026 are Wednesday to Friday; Thursday, November 26 is Thanksgiving.
DEADLINES = [
    ("ach", "2026-12-01 10:00", "2026-12-05 00:00"),
    ("ach", "2026-12-01 17:00", "2026-12-05 00:00"),
    ("ach", "2026-12-01 17:01", "2026-12-08 00:00"),
    ("ach", "2026-12-01 00:00", "2026-12-05 00:00"),
    # Accepted on a Saturday: counts as Monday.
    ("ach", "2026-11-28 09:00", "2026-12-04 00:00"),
    # Over Thanksgiving and a weekend.
    ("ach", "2026-11-25 12:00", "2026-12-02 00:00"),
    # The Friday before Independence Day on a Saturday is a banking day.
    ("ach", "2026-06-30 12:00", "2026-07-04 00:00"),
    ("wire", "2026-12-02 10:15", "2026-12-02 11:15"),
    ("wire", "2026-12-02 17:00", "2026-12-02 18:00"),
    ("wire", "2026-12-02 17:01", "2026-12-03 10:00"),
    ("wire", "2026-12-02 03:00", "2026-12-02 10:00"),
    ("wire", "2026-12-02 08:59", "2026-12-02 10:00"),
    ("wire", "2026-12-04 20:00", "2026-12-07 10:00"),
    ("wire", "2026-11-26 12:00", "2026-11-27 10:00"),
    ("wire", "2026-12-05 12:00", "2026-12-07 10:00"),
    # The clocks change on the Sunday between: an hour more, then an hour less, in UTC.
    ("ach", "2026-03-06 12:00", "2026-03-12 00:00"),
    ("ach", "2026-10-30 12:00", "2026-11-05 00:00"),
    ("wire", "2026-03-08 02:30", "2026-03-09 10:00"),
    ("wire", "2026-11-01 01:30", "2026-11-02 10:00"),
]


def eastern(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=EASTERN)


@pytest.mark.parametrize(("method", "accepted", "deadline"), DEADLINES)
def test_deadline_follows_banking_days_and_hours(method: str, accepted: str, deadline: str) -> None:
    assert settlement_deadline(method, eastern(accepted)) == eastern(deadline).astimezone(UTC)
    # The same moment, as the bank writes it.
    assert settlement_deadline(method, eastern(accepted).astimezone(UTC)) == eastern(deadline)


def test_settlement_day_is_the_last_one_before_the_deadline() -> None:
    assert settles_on("ach", eastern("2026-12-01 10:00")).isoformat() == "2026-12-04"
    assert settles_on("wire", eastern("2026-12-02 17:01")).isoformat() == "2026-12-03"


minutes = st.integers(0, 8 * 366 * 24 * 60).map(
    lambda number: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
)


@given(method=st.sampled_from(["ach", "wire"]), now=minutes, minutes_before=st.integers(-60, 15 * 24 * 60))
def test_overdue_is_whatever_was_accepted_early_enough(method: str, now: datetime, minutes_before: int) -> None:
    accepted_at = now - timedelta(minutes=minutes_before)
    is_overdue = settlement_deadline(method, accepted_at) <= now
    assert is_overdue == (accepted_at <= latest_overdue(method, now))


@given(method=st.sampled_from(["ach", "wire"]), now=minutes)
def test_overdue_begins_at_the_very_microsecond(method: str, now: datetime) -> None:
    latest = latest_overdue(method, now)
    assert settlement_deadline(method, latest) <= now
    assert settlement_deadline(method, latest + timedelta(microseconds=1)) > now
