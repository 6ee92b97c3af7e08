"""When every schedule and sensor ticked and when it should have: facts from Dagster's own tables, by plain SQL.

It imports no Dagster, so that the watchdog can ask when Dagster is dead, and judges nothing: `due_at` and
`silent_at` say from when on a tick is late, and what follows is for whoever asks.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim
from sqlalchemy import Connection, text

INTERVALS_MISSED = 2
GRACE_SECONDS = 60.0
"""Design, section 7: a schedule or sensor has stopped when it has not ticked for two of its intervals plus 60 s."""
SENSOR_LOOP_SECONDS = 5.0
"""Dagster looks at its sensors every five seconds, however short their own interval."""
SENSOR_DEFAULT_SECONDS = 30.0
ALWAYS_ON = frozenset({"job_run_sensor", "job_health_sensor"})
"""What starts switched on even where DEV_ENV=1 (design, section 1)."""

# A tick that failed or never ended did no work; the newest tick of any kind says why.
_FACTS = text(
    """
    select i.instigator_type, i.status, i.instigator_body,
           extract(epoch from i.create_timestamp) as known_since,
           newest.status as last_status, newest.timestamp as last_at,
           coalesce(good.end_timestamp, good.timestamp) as good_ended_at, good.timestamp as good_at
    from instigators i
    left join lateral (
        select t.status, (t.tick_body::json ->> 'timestamp')::float as timestamp
        from job_ticks t where t.selector_id = i.selector_id order by t.timestamp desc limit 1
    ) newest on true
    left join lateral (
        select (t.tick_body::json ->> 'timestamp')::float as timestamp,
               (t.tick_body::json ->> 'end_timestamp')::float as end_timestamp
        from job_ticks t where t.selector_id = i.selector_id and t.status in ('SUCCESS', 'SKIPPED')
        order by t.timestamp desc limit 1
    ) good on true
    """
)


class Kind(StrEnum):
    """What ticks."""

    SCHEDULE = "SCHEDULE"
    SENSOR = "SENSOR"


@dataclass(frozen=True)
class Ticking:
    """A schedule or sensor that Dagster knows; times are aware, in UTC, None where there is none.

    `last_tick_at` is the time for which the newest tick was due (a schedule's) or at which it began (a sensor's),
    whatever came of it (`last_tick_status`: STARTED, SKIPPED, SUCCESS or FAILURE). `last_good_at` is that of the
    newest one that ended well, of a sensor the time of its end. `on_since` is when it was switched on.
    `interval_seconds` is the time from the next tick to the one after it. While it is on, `due_at` is when the first
    tick after `last_good_at` is due, and `silent_at` when that and the next one are missed and the grace has passed.
    """

    name: str
    kind: Kind
    is_on: bool
    on_since: datetime | None
    interval_seconds: float
    last_tick_at: datetime | None
    last_tick_status: str | None
    last_good_at: datetime | None
    due_at: datetime | None
    silent_at: datetime | None


def read_ticks(
    connection: Connection, *, zone: ZoneInfo, dev_env: bool, now: datetime, grace_seconds: float = GRACE_SECONDS
) -> list[Ticking]:
    """Return what Dagster's database knows of every schedule and sensor, by name; none where it never ran one.

    Args:
        connection: to Dagster's own database.
        zone: the time zone that schedules tick in.
        dev_env: whether what nobody has switched starts switched off (DEV_ENV=1).
        now: aware; decides the interval of a schedule whose hours are those of a wall clock.
        grace_seconds: what is borne beyond two intervals.
    """
    if connection.scalar(text("select to_regclass('instigators') is null or to_regclass('job_ticks') is null")):
        return []
    grace = timedelta(seconds=grace_seconds)
    rows = connection.execute(_FACTS).mappings()
    return sorted((_ticking(row, zone, dev_env, now, grace) for row in rows), key=lambda one: (one.kind, one.name))


def due_times(crons: Sequence[str], after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield, in UTC, the times after `after` at which a schedule of these cron lines ticks, without end.

    Of an hour that comes twice, a line with a fixed hour means the second one, as Dagster does.
    """
    times = [_next(cron, after.astimezone(zone)) for cron in crons]
    while True:
        due = min(times)
        yield due.astimezone(UTC)
        times = [_next(cron, due) if time == due else time for cron, time in zip(crons, times, strict=True)]


def _next(cron: str, after: datetime) -> datetime:
    due = next(CronSim(cron, after))
    later = due.replace(fold=1)
    is_of_a_fixed_hour = cron.split()[1].isdecimal()
    return later if is_of_a_fixed_hour and later.utcoffset() != due.utcoffset() else due


def _ticking(row: Any, zone: ZoneInfo, dev_env: bool, now: datetime, grace: timedelta) -> Ticking:
    body = json.loads(row["instigator_body"])
    stored = body.get("job_specific_data") or {}
    name = body["origin"]["job_name"]
    kind = Kind(row["instigator_type"])
    is_on = row["status"] == "RUNNING" or (
        row["status"] != "STOPPED" and (not dev_env or name in ALWAYS_ON)  # as its code declares it
    )
    if kind is Kind.SCHEDULE:
        crons = stored["cron_schedule"]
        crons = [crons] if isinstance(crons, str) else list(crons)
        on_since = _time(stored.get("start_timestamp") or stored.get("last_iteration_timestamp") or row["known_since"])
        last_good_at = _time(row["good_at"])
        first, second = islice(due_times(crons, now, zone), 2)
        interval = (second - first).total_seconds()
    else:
        crons = []
        on_since = _time(stored.get("last_sensor_start_timestamp") or row["known_since"])
        last_good_at = _time(row["good_ended_at"])
        interval = max(float(stored.get("min_interval") or SENSOR_DEFAULT_SECONDS), SENSOR_LOOP_SECONDS)
    due_at, silent_at = None, None
    if is_on:
        since = max(time for time in (on_since, last_good_at) if time is not None)
        due_at, last_missed = _expected(crons, interval, since, zone)
        silent_at = last_missed + grace
    return Ticking(
        name=name,
        kind=kind,
        is_on=is_on,
        on_since=on_since if is_on else None,
        interval_seconds=interval,
        last_tick_at=_time(row["last_at"]),
        last_tick_status=row["last_status"],
        last_good_at=last_good_at,
        due_at=due_at,
        silent_at=silent_at,
    )


def _expected(crons: Sequence[str], interval: float, since: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return when the first tick after `since` is due, and the last one that may be missed."""
    if crons:
        expected = list(islice(due_times(crons, since, zone), INTERVALS_MISSED))
    else:
        expected = [since + timedelta(seconds=interval) * number for number in range(1, INTERVALS_MISSED + 1)]
    return expected[0], expected[-1]


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(float(seconds), UTC) if seconds is not None else None
