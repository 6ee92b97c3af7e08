"""Reads, by plain SQL, the daemons' last heartbeats and when every schedule and sensor last ticked and is due next.

It imports no Dagster, so that the watchdog can use it when Dagster is down. It evaluates nothing: `due_at` and
`silent_at` say from when a tick counts as late, and the caller decides what follows.
See docs/decisions/watchdog.md.
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

DAEMON_TYPES = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING")
"""The daemons that our jobs need: for sensors, schedules, the run queue, and failing runs whose worker is lost."""

INTERVALS_MISSED = 2
GRACE_SECONDS = 60.0
"""docs/rules.md, section 7: a schedule or sensor has stopped after two of its intervals plus 60 s without a tick."""
SENSOR_LOOP_SECONDS = 5.0
"""Dagster evaluates its sensors every five seconds at most, however short their own interval is."""
SENSOR_DEFAULT_SECONDS = 30.0
ALWAYS_ON = frozenset({"job_run_sensor", "job_health_sensor"})
"""The sensors that start RUNNING even if DEV_ENV=1 (docs/rules.md, section 1)."""

# A tick that failed or never ended did no work, so only good ticks count; the newest tick of any kind says why.
_QUERY = text(
    """
    select i.instigator_type, i.status, i.instigator_body,
           extract(epoch from i.create_timestamp) as created_at,
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


class AutomationKind(StrEnum):
    """The kind of automation."""

    SCHEDULE = "SCHEDULE"
    SENSOR = "SENSOR"


@dataclass(frozen=True)
class AutomationTicks:
    """The ticks of a schedule or sensor that Dagster knows; times are aware, in UTC, or None if there is none.

    `last_tick_at` is when the newest tick was due (a schedule's) or started (a sensor's), whatever its result
    (`last_tick_status`: STARTED, SKIPPED, SUCCESS or FAILURE). `last_good_at` is the same for the newest tick with
    SUCCESS or SKIPPED, but for a sensor the time it ended. `on_since` is when it was switched on. `interval_seconds` is
    the time from the next tick to the one after it. While it is on, `due_at` is when the first tick after
    `last_good_at` is due, and `silent_at` when that one and the next were missed and the grace time has passed.
    """

    name: str
    kind: AutomationKind
    is_on: bool
    on_since: datetime | None
    interval_seconds: float
    last_tick_at: datetime | None
    last_tick_status: str | None
    last_good_at: datetime | None
    due_at: datetime | None
    silent_at: datetime | None


def read_heartbeats(connection: Connection) -> dict[str, datetime]:
    """Return the last heartbeat (UTC) of each of `DAEMON_TYPES` that ever sent one, from Dagster's own database."""
    if connection.scalar(text("select to_regclass('daemon_heartbeats') is null")):
        return {}
    bodies = connection.scalars(text("select body from daemon_heartbeats"))
    beats = {body["daemon_type"]: datetime.fromtimestamp(body["timestamp"], UTC) for body in map(json.loads, bodies)}
    return {name: beats[name] for name in DAEMON_TYPES if name in beats}


def read_ticks(
    connection: Connection, *, zone: ZoneInfo, dev_env: bool, now: datetime, grace_seconds: float = GRACE_SECONDS
) -> list[AutomationTicks]:
    """Return the ticks of every schedule and sensor, sorted by kind and name; empty if no daemon has used the database.

    Args:
        connection: to Dagster's own database.
        zone: the time zone of the schedules.
        dev_env: whether schedules and sensors that nobody has switched are off (DEV_ENV=1).
        now: aware; decides the interval of a schedule, which changes with daylight saving.
        grace_seconds: how late a tick may be beyond two intervals.
    """
    if connection.scalar(text("select to_regclass('instigators') is null or to_regclass('job_ticks') is null")):
        return []
    grace = timedelta(seconds=grace_seconds)
    rows = connection.execute(_QUERY).mappings()
    ticks = (_read_row(row, zone, dev_env, now, grace) for row in rows)
    return sorted(ticks, key=lambda automation: (automation.kind, automation.name))


def due_times(crons: Sequence[str], after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield, in UTC and without end, the times after `after` at which a schedule with these cron strings ticks.

    If daylight saving repeats an hour, a cron string with a fixed hour ticks in the second one, as in Dagster.
    """
    times = [_next_time(cron, after.astimezone(zone)) for cron in crons]
    while True:
        due = min(times)
        yield due.astimezone(UTC)
        times = [_next_time(cron, due) if time == due else time for cron, time in zip(crons, times, strict=True)]


def _next_time(cron: str, after: datetime) -> datetime:
    due = next(CronSim(cron, after))
    later = due.replace(fold=1)
    has_fixed_hour = cron.split()[1].isdecimal()
    return later if has_fixed_hour and later.utcoffset() != due.utcoffset() else due


def _read_row(row: Any, zone: ZoneInfo, dev_env: bool, now: datetime, grace: timedelta) -> AutomationTicks:
    body = json.loads(row["instigator_body"])
    stored = body.get("job_specific_data") or {}
    name = body["origin"]["job_name"]
    kind = AutomationKind(row["instigator_type"])
    is_on = row["status"] == "RUNNING" or (
        row["status"] != "STOPPED" and (not dev_env or name in ALWAYS_ON)  # as its code declares it
    )
    if kind is AutomationKind.SCHEDULE:
        crons = stored["cron_schedule"]
        crons = [crons] if isinstance(crons, str) else list(crons)
        on_since = _to_utc(stored.get("start_timestamp") or stored.get("last_iteration_timestamp") or row["created_at"])
        last_good_at = _to_utc(row["good_at"])
        first, second = islice(due_times(crons, now, zone), 2)
        interval = (second - first).total_seconds()
    else:
        crons = []
        on_since = _to_utc(stored.get("last_sensor_start_timestamp") or row["created_at"])
        last_good_at = _to_utc(row["good_ended_at"])
        interval = max(float(stored.get("min_interval") or SENSOR_DEFAULT_SECONDS), SENSOR_LOOP_SECONDS)
    due_at, silent_at = None, None
    if is_on:
        since = max(time for time in (on_since, last_good_at) if time is not None)
        due_at, last_missed = _compute_deadlines(crons, interval, since, zone)
        silent_at = last_missed + grace
    return AutomationTicks(
        name=name,
        kind=kind,
        is_on=is_on,
        on_since=on_since if is_on else None,
        interval_seconds=interval,
        last_tick_at=_to_utc(row["last_at"]),
        last_tick_status=row["last_status"],
        last_good_at=last_good_at,
        due_at=due_at,
        silent_at=silent_at,
    )


def _compute_deadlines(
    crons: Sequence[str], interval: float, since: datetime, zone: ZoneInfo
) -> tuple[datetime, datetime]:
    """Return when the first tick after `since` is due, and when the last one that may be missed is due."""
    if crons:
        expected = list(islice(due_times(crons, since, zone), INTERVALS_MISSED))
    else:
        expected = [since + timedelta(seconds=interval) * number for number in range(1, INTERVALS_MISSED + 1)]
    return expected[0], expected[-1]


def _to_utc(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(float(seconds), UTC) if seconds is not None else None
