"""Schedules by the office's calendar: daily, weekly and every third day, each due date launched once.

Dagster evaluates the last tick that it missed, however late; what is decided here is which due date a tick serves
and whether that date was launched already, so that no doubled hour and no replayed tick runs a job twice.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from seedtrust_ops.config import get_settings
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags

DUE_TAG = "seedtrust/due"
"""The due date that a run was launched for, as ISO 8601 writes it."""
THIRD_DAY_ANCHOR = date(2024, 1, 1)
"""'Every 3rd day' is this day and every third before and after it, across months, years and leap days."""

_SCHEDULE_TAG = "dagster/schedule_name"
_TICK_TAG = ".dagster/scheduled_execution_time"

Job = dg.JobDefinition | UnresolvedAssetJobDefinition
LastDue = Callable[[date], date]
"""Given a day, the last due date on or before it."""
PartitionOf = Callable[[date], str]
"""Given a due date, the key of the partition that its run makes."""


class Weekday(Enum):
    """The days on which weekly schedules run, numbered as cron numbers them."""

    SUNDAY = 0
    MONDAY = 1


def office_zone() -> ZoneInfo:
    """Return the time zone of the office's wall clock (SEEDTRUST_TIMEZONE)."""
    return ZoneInfo(get_settings().location.timezone)


def office_today() -> date:
    """Return today's date by the office's wall clock."""
    return datetime.now(office_zone()).date()


def daily_schedule(
    job: Job, *, hour: int, minute: int = 0, partition_of: PartitionOf | None = None
) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every day at `hour`:`minute` by the office's wall clock.

    Missed, it ticks once as soon as the daemon is back. `partition_of`: see `weekly_schedule`.
    """
    return _calendar_schedule(
        job, f"{minute} {hour} * * *", _same_day, f"Every day at {hour:02}:{minute:02}.", partition_of
    )


def weekly_schedule(
    job: Job, *, hour: int, minute: int = 0, on: Weekday = Weekday.SUNDAY, partition_of: PartitionOf | None = None
) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: once a week at `hour`:`minute` by the office's wall clock.

    Missed, it ticks once as soon as the daemon is back: on the day after, say. Where Sunday's 01:00 comes twice
    because daylight saving ends, it runs once.

    Args:
        job: what is launched.
        hour: of the office's wall clock.
        minute: of that hour.
        on: the day of the week.
        partition_of: given the day that is due, the partition that its run makes; None where the job has none.
    """
    return _calendar_schedule(
        job,
        f"{minute} {hour} * * {on.value}",
        partial(last_weekday, weekday=on),
        f"Every {on.name.capitalize()} at {hour:02}:{minute:02}.",
        partition_of,
    )


def third_day_schedule(job: Job, *, hour: int) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every third day from THIRD_DAY_ANCHOR at `hour`:00 by the office's wall clock.

    It ticks daily, because cron's `*/3` starts anew each month, and skips the other days with a reason. A due day
    that was missed is made up for on the next day.
    """
    return _calendar_schedule(
        job, f"0 {hour} * * *", last_third_day, f"Every third day at {hour:02}:00; on the other days it skips."
    )


def last_weekday(day: date, weekday: Weekday) -> date:
    """Return the last such day of the week on or before `day`."""
    return day - timedelta(days=(day.isoweekday() - weekday.value) % 7)


def last_third_day(day: date) -> date:
    """Return the last day on or before `day` that is a multiple of three days away from THIRD_DAY_ANCHOR."""
    return day - timedelta(days=(day - THIRD_DAY_ANCHOR).days % 3)


def _same_day(day: date) -> date:
    return day


def _calendar_schedule(
    job: Job,
    cron: str,
    last_due: LastDue,
    description: str,
    partition_of: PartitionOf | None = None,
) -> dg.ScheduleDefinition:
    zone = office_zone()
    name = f"{job.name}_schedule"

    def launch_what_is_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        today = tick.astimezone(zone).date()
        due = last_due(today)
        last = _last_launch(context, job, name)
        if last is None and due != today:
            return dg.SkipReason(f"Nothing is due on {today}: the next run is on {_next_due(last_due, today)}.")
        # A tick that died between creating its run and launching it is evaluated again and asks again: Dagster
        # finds the run by its tick and key, and launches it.
        if last is not None and _serves(last, due) and last.tags.get(_TICK_TAG) != _as_tag(tick):
            return dg.SkipReason(
                f"What was due on {due} was launched as run {last.run_id}: the next is on {_next_due(last_due, today)}."
            )
        return dg.RunRequest(
            run_key=f"{job.name}:{due}",
            tags={DUE_TAG: due.isoformat()},
            partition_key=partition_of(due) if partition_of is not None else None,
        )

    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(zone),
        execution_fn=launch_what_is_due,
        default_status=automation_status()[0],
        description=description,
        **owners_and_tags(job.name),
    )


def _last_launch(context: dg.ScheduleEvaluationContext, job: Job, schedule_name: str) -> dg.DagsterRun | None:
    """Return the newest run that the schedule launched, None where there is none."""
    if context.instance_ref is None:
        # Evaluated by itself, outside any deployment: it has no past.
        return None
    runs = context.instance.get_runs(dg.RunsFilter(job_name=job.name, tags={_SCHEDULE_TAG: schedule_name}), limit=1)
    return runs[0] if runs else None


def _serves(run: dg.DagsterRun, due: date) -> bool:
    return run.tags.get(DUE_TAG, "") >= due.isoformat()


def _next_due(last_due: LastDue, today: date) -> date:
    days = (today + timedelta(days=ahead) for ahead in range(1, 8))
    return next(day for day in days if last_due(day) == day)


def _as_tag(tick: datetime) -> str:
    return tick.astimezone(UTC).isoformat()
