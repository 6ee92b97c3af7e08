"""Schedules in the office's time zone: by the calendar, every few minutes, or every minute if there is work.

Dagster evaluates the last tick that it missed, however late. For schedules by the calendar, this module decides which
due date a tick belongs to and whether that date was already launched, so that a repeated hour or a replayed tick never
runs a job twice.
See docs/decisions/schedules.md.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import UnresolvedAssetJobDefinition
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.job_factory import automation_status, owners_and_tags
from seedtrust_ops.orchestration.shadow_runs import is_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures
from seedtrust_ops.tag_names import DUE_TAG, REASON_TAG

ASSUME_CRASHED_AFTER = timedelta(minutes=3)
"""A run of a job that looks for work every minute usually takes seconds. One that takes longer, or whose worker
crashed, must not block the next run."""
# SUSPENDED does not exist in every version of Dagster that this project runs on.
IN_PROGRESS = [
    status for status in dg.DagsterRunStatus if status.name in ("STARTING", "STARTED", "SUSPENDED", "CANCELING")
]
LAUNCHES_READ = 50
"""More runs than people re-execute of one job between two of its due dates."""
THIRD_DAY_ANCHOR = date(2024, 1, 1)
"""'Every 3rd day' counts from this date in both directions, across months, years and leap days."""

_SCHEDULE_TAG = "dagster/schedule_name"
_TICK_TAG = ".dagster/scheduled_execution_time"

Job = dg.JobDefinition | UnresolvedAssetJobDefinition
LastDueDate = Callable[[date], date]
"""Maps a date to the last due date on or before it."""
FindWork = Callable[[Sessions], str | None]
PartitionKeyFor = Callable[[date], str]
"""Maps a due date to the key of the partition that its run materializes."""


class Weekday(Enum):
    """The days on which weekly schedules run, numbered as in cron."""

    SUNDAY = 0
    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6


def office_zone() -> ZoneInfo:
    """Return the office's time zone (SEEDTRUST_TIMEZONE)."""
    return ZoneInfo(get_settings().location.timezone)


def office_today() -> date:
    """Return today's date in the office's time zone."""
    return datetime.now(office_zone()).date()


def daily_schedule(
    job: Job, *, hour: int, minute: int = 0, partition_key_for: PartitionKeyFor | None = None
) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every day at `hour`:`minute` in the office's time zone.

    A missed tick runs once as soon as the daemon is back. For `partition_key_for` see `weekly_schedule`.
    """
    return _calendar_schedule(
        job, f"{minute} {hour} * * *", _same_day, f"Daily at {hour:02}:{minute:02}.", partition_key_for
    )


def weekly_schedule(
    job: Job,
    *,
    hour: int,
    minute: int = 0,
    on: Weekday = Weekday.SUNDAY,
    partition_key_for: PartitionKeyFor | None = None,
) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: once a week at `hour`:`minute` in the office's time zone.

    A missed tick runs once as soon as the daemon is back, for example on the next day. On the Sunday that daylight
    saving ends, 01:00 happens twice and the job runs once.

    Args:
        job: the job to launch.
        hour: 0 to 23, in the office's time zone.
        minute: 0 to 59.
        on: the day of the week.
        partition_key_for: maps the due date to the partition that its run materializes; None if the job has none.
    """
    return _calendar_schedule(
        job,
        f"{minute} {hour} * * {on.value}",
        partial(last_weekday, weekday=on),
        f"{on.name.capitalize()}s at {hour:02}:{minute:02}.",
        partition_key_for,
    )


def weekday_schedule(job: Job, *, hour: int, minute: int = 0) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: Mondays to Fridays at `hour`:`minute` in the office's time zone.

    A missed tick runs once as soon as the daemon is back. Federal holidays count as weekdays.
    """
    return _calendar_schedule(
        job, f"{minute} {hour} * * 1-5", last_monday_to_friday, f"Mondays to Fridays at {hour:02}:{minute:02}."
    )


def third_day_schedule(job: Job, *, hour: int) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every third day from THIRD_DAY_ANCHOR at `hour`:00 in the office's time zone.

    It ticks daily, because cron's `*/3` restarts each month, and skips the other days with a reason. A missed due date
    runs on the next day.
    """
    return _calendar_schedule(
        job,
        f"0 {hour} * * *",
        last_third_day,
        f"Every third day at {hour:02}:00. Ticks daily, skips other days.",
    )


def interval_schedule(job: Job, *, minutes: int) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every `minutes` minutes of the hour, a divisor of 60. Missed ticks are lost."""
    if 60 % minutes:
        raise ValueError(f"An interval must divide the hour, so it can't be {minutes} minutes.")
    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=f"*/{minutes} * * * *",
        execution_timezone=str(office_zone()),
        default_status=automation_status()[0],
        description=f"Every {minutes} minutes.",
        **owners_and_tags(job.name),
    )


def every_minute_if(
    job: Job, *, find_work: FindWork, find_shadow_work: FindWork, no_work: str, description: str
) -> dg.ScheduleDefinition:
    """Return schedule `<job>_schedule`: every minute, if there is work and no run of the job is in progress.

    Args:
        job: the job to launch.
        find_work: returns what work there is, a short text for the run's tag `seedtrust/reason`; None if there is none.
        find_shadow_work: the same, while the job is in shadow mode.
        no_work: why a tick without work is skipped, a sentence.
        description: what counts as work, a sentence.
    """

    @dg.schedule(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule="* * * * *",
        execution_timezone=str(office_zone()),
        default_status=automation_status()[0],
        description=description,
        **owners_and_tags(job.name),
    )
    def launch_if_there_is_work(
        context: dg.ScheduleEvaluationContext, database: DatabaseResource
    ) -> dg.RunRequest | dg.SkipReason:
        with user_facing_failures():
            find = find_shadow_work if is_in_shadow_mode(job.name) else find_work
            work = find(database.sessions())
        running = _run_in_progress(context, job)
        if running is not None:
            return dg.SkipReason(f"Run {running} is already in progress.")
        return dg.SkipReason(no_work) if work is None else dg.RunRequest(tags={REASON_TAG: work})

    return launch_if_there_is_work


def last_monday_to_friday(day: date) -> date:
    """Return `day`, or the Friday before it on a weekend."""
    return day - timedelta(days=max(0, day.isoweekday() - 5))


def last_weekday(day: date, weekday: Weekday) -> date:
    """Return the last `weekday` on or before `day`."""
    return day - timedelta(days=(day.isoweekday() - weekday.value) % 7)


def last_third_day(day: date) -> date:
    """Return the last date on or before `day` that is a multiple of three days from THIRD_DAY_ANCHOR."""
    return day - timedelta(days=(day - THIRD_DAY_ANCHOR).days % 3)


def _same_day(day: date) -> date:
    return day


def _calendar_schedule(
    job: Job,
    cron: str,
    last_due: LastDueDate,
    description: str,
    partition_key_for: PartitionKeyFor | None = None,
) -> dg.ScheduleDefinition:
    zone = office_zone()
    name = f"{job.name}_schedule"

    def launch_if_due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        today = tick.astimezone(zone).date()
        due = last_due(today)
        last = _last_launch(context, job, name)
        if last is None and due != today:
            return dg.SkipReason(f"Not due on {today}. The next run is on {_next_due(last_due, today)}.")
        # If the daemon crashed between creating and launching a run, the same tick is evaluated again. It must request
        # the run again: Dagster finds the existing run by its tick and run key, and launches it.
        if last is not None and _covers(last, due) and last.tags.get(_TICK_TAG) != _as_tag(tick):
            return dg.SkipReason(
                f"Already launched for {due} as run {last.run_id}. The next run is on {_next_due(last_due, today)}."
            )
        return dg.RunRequest(
            run_key=f"{job.name}:{due}",
            tags={DUE_TAG: due.isoformat()},
            partition_key=partition_key_for(due) if partition_key_for is not None else None,
        )

    return dg.ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(zone),
        execution_fn=launch_if_due,
        default_status=automation_status()[0],
        description=description,
        **owners_and_tags(job.name),
    )


def _run_in_progress(context: dg.ScheduleEvaluationContext, job: Job) -> str | None:
    """Return the id of a run of the job that is in progress and too young to be assumed crashed, or None."""
    if context.instance_ref is None:
        # Evaluated outside a deployment (a unit test), so there are no runs.
        return None
    records = context.instance.get_run_records(
        dg.RunsFilter(job_name=job.name, statuses=IN_PROGRESS, created_after=datetime.now(UTC) - ASSUME_CRASHED_AFTER),
        limit=1,
    )
    return records[0].dagster_run.run_id if records else None


def _last_launch(context: dg.ScheduleEvaluationContext, job: Job, schedule_name: str) -> dg.DagsterRun | None:
    """Return the run that the schedule launched for the latest due date, or None.

    A person may have re-executed a run of an earlier date since; it has that run's tags.
    """
    if context.instance_ref is None:
        # Evaluated outside a deployment (a unit test), so there are no earlier runs.
        return None
    runs = context.instance.get_runs(
        dg.RunsFilter(job_name=job.name, tags={_SCHEDULE_TAG: schedule_name}), limit=LAUNCHES_READ
    )
    return max(runs, key=lambda run: run.tags.get(DUE_TAG, ""), default=None)


def _covers(run: dg.DagsterRun, due: date) -> bool:
    return run.tags.get(DUE_TAG, "") >= due.isoformat()


def _next_due(last_due: LastDueDate, today: date) -> date:
    days = (today + timedelta(days=ahead) for ahead in range(1, 8))
    return next(day for day in days if last_due(day) == day)


def _as_tag(tick: datetime) -> str:
    return tick.astimezone(UTC).isoformat()
