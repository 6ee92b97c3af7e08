"""Dates and times that Python cannot represent are loaded, compared, shown and written back as PostgreSQL has them."""

import copy
import pickle
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import literal_column, select, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.sql_ranges import capped_cents, cents_between, local_time, representable, seconds_between
from seedtrust_ops.tables.extreme_times import ExtremeDate, ExtremeTime, is_extreme

NOW = datetime(2026, 11, 30, tzinfo=UTC)
EARLY = ("-infinity", "0044-03-15 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC", "0001-01-01 00:00:00+00")
LATE = ("infinity", "20260-12-01 00:00:00+00", "294276-12-31 23:59:59+00", "9999-12-31 00:00:00+00")


def _load(sessions: sessionmaker[Session], sql: str) -> object:
    with sessions() as session:
        return session.scalar(text(f"select {sql}".replace(":", "\\:")))


@pytest.mark.parametrize("stored", [*EARLY, *LATE])
def test_extreme_time_sorts_and_shows_as_postgresql_has_it(sessions: sessionmaker[Session], stored: str) -> None:
    time = _load(sessions, f"'{stored}'::timestamptz")
    assert isinstance(time, ExtremeTime)
    assert (time < NOW) is (stored in EARLY)
    assert str(time) == f"{time:%Y}" == time.isoformat() == str(time.date()) == stored
    assert is_extreme(stored)
    moved = [time + timedelta(days=9), time - timedelta(days=9), time.astimezone(ZoneInfo("America/New_York"))]
    assert [str(one) for one in (*moved, copy.deepcopy(time), pickle.loads(pickle.dumps(time)))] == [stored] * 5
    assert (NOW - time > timedelta(0)) is (stored in EARLY)
    assert time.replace(tzinfo=None).tzinfo is None
    with sessions() as session:
        is_same = text("select cast(:time as timestamptz) = cast(:stored as timestamptz)")
        assert session.scalar(is_same, {"time": time, "stored": stored}) is True


@pytest.mark.parametrize("stored", ["-infinity", "0044-03-15 BC", "infinity", "20260-12-01", "9999-12-31"])
def test_extreme_date_sorts_and_shows_as_postgresql_has_it(sessions: sessionmaker[Session], stored: str) -> None:
    day = _load(sessions, f"'{stored}'::date")
    assert isinstance(day, ExtremeDate)
    assert (day < NOW.date()) is (stored in ("-infinity", "0044-03-15 BC"))
    assert [str(one) for one in (day, day + timedelta(1), day - timedelta(1), copy.deepcopy(day))] == [stored] * 4
    assert day.isoformat() == f"{day:%B}" == stored


def test_ordinary_times_are_loaded_as_ever(sessions: sessionmaker[Session]) -> None:
    loaded = _load(sessions, "array['2026-11-30 00:00+00'::timestamptz, '0026-12-01 00:00+00'::timestamptz]")
    assert loaded == [NOW, datetime(26, 12, 1, tzinfo=UTC)]
    assert _load(sessions, "'2026-11-30'::date") == date(2026, 11, 30)
    assert _load(sessions, "null::timestamptz") is None
    assert not is_extreme("2026-11-30")
    assert not is_extreme("2026-11-30T10:00:00+00:00")


@pytest.mark.parametrize("value", ['{"a": 1}', "[" * 2_000 + "]" * 2_000, "9" * 5_000])
def test_json_that_python_cannot_load_is_null(sessions: sessionmaker[Session], value: str) -> None:
    assert _load(sessions, f"'{value}'::jsonb") == ({"a": 1} if value.startswith("{") else None)


@pytest.mark.parametrize("stored", [*EARLY, *LATE])
def test_sql_on_extreme_times_never_fails(sessions: sessionmaker[Session], stored: str) -> None:
    moment = literal_column(f"timestamptz '{stored}'", TIMESTAMP(timezone=True))
    now = literal_column("timestamptz '2026-11-30 00:00+00'", TIMESTAMP(timezone=True))
    with sessions() as session:
        seconds, local, loaded = session.execute(
            select(seconds_between(moment, now), local_time(moment, "America/New_York"), representable(moment))
        ).one()
    assert (seconds > 10**10) is (stored in EARLY)
    assert isinstance(local, ExtremeTime)
    assert loaded is None or stored.startswith(("0001", "9999"))


def test_amounts_beyond_a_bigint_are_the_nearest_one(sessions: sessionmaker[Session]) -> None:
    largest = literal_column(str(2**63 - 1))
    with sessions() as session:
        assert session.execute(
            select(cents_between(literal_column("-5"), largest), cents_between(largest, literal_column("-5")))
        ).one() == (2**63 - 1, -(2**63 - 1))
        assert session.scalar(select(capped_cents(literal_column("7.0")))) == 7
