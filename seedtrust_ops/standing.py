"""How things stand, for `seedtrust-ops status`: jobs, batches, what is in flight, the queue and open alerts.

It gathers and shows; whether that is well or ill is for `health` to judge.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._utils.schedules import schedule_execution_time_iterator
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.config import dagster_home, environment
from seedtrust_ops.definitions import definitions
from seedtrust_ops.domain.transfers.halting import why_halted
from seedtrust_ops.domain.transfers.leases import is_live
from seedtrust_ops.resources.database import application_engine, plain_database_errors
from seedtrust_ops.tables import Alert, BatchLease, HuntingtonBatch, HuntingtonTransaction

Automation = dg.ScheduleDefinition | dg.SensorDefinition
ALERTS_SHOWN = 20
_COLOURS = {"SUCCESS": "green", "FAILURE": "red", "RUNNING": "green", "STOPPED": "yellow", "CRITICAL": "red"}


@dataclass(frozen=True)
class JobStanding:
    """A job, or a sensor that launches none; times in UTC, ISO 8601, None where there is none."""

    name: str
    automation: str | None
    state: str | None
    last_run_status: str | None
    last_run_at: str | None
    next_tick_at: str | None


@dataclass(frozen=True)
class Standing:
    """Everything that `status` shows; money in cents."""

    jobs: list[JobStanding]
    runs_queued: int
    runs_under_way: int
    batches: dict[str, int]
    transactions_in_flight: dict[str, int]
    cents_in_flight: int
    batches_held: list[dict[str, Any]]
    halted: str | None
    alerts: list[dict[str, Any]]


def show_standing(*, as_json: bool) -> None:
    """Print how things stand, for people or as one JSON object.

    Raises:
        ConfigurationError, DatabaseUnreachable, SchemaOutOfDate: as their modules say.
    """
    engine = application_engine()
    with (
        plain_database_errors(engine.url),
        Session(engine) as session,
        dg.DagsterInstance.from_config(str(dagster_home())) as instance,
    ):
        standing = gather(session, instance, datetime.now(UTC))
    if as_json:
        Console().print_json(json.dumps(asdict(standing)))
    else:
        _print(Console(), standing)


def gather(session: Session, instance: dg.DagsterInstance, now: datetime) -> Standing:
    """Return how things stand at `now` (UTC)."""
    in_flight = session.execute(
        select(
            HuntingtonTransaction.status,
            func.count().label("number"),
            func.sum(HuntingtonTransaction.amount_cents).label("cents"),
        )
        .where(HuntingtonTransaction.status.in_(("processing", "submitted")))
        .group_by(HuntingtonTransaction.status)
    ).all()
    leases = session.execute(select(BatchLease.batch_id, BatchLease.holder).where(is_live())).all()
    alerts = session.scalars(
        select(Alert).where(Alert.resolved_at.is_(None)).order_by(Alert.opened_at.desc()).limit(ALERTS_SHOWN)
    )
    return Standing(
        jobs=_jobs(instance, now),
        runs_queued=_runs(instance, dg.DagsterRunStatus.QUEUED),
        runs_under_way=_runs(instance, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED),
        batches={
            status: int(number)
            for status, number in session.execute(
                select(HuntingtonBatch.status, func.count())
                .group_by(HuntingtonBatch.status)
                .order_by(HuntingtonBatch.status)
            )
        },
        transactions_in_flight={row.status: int(row.number) for row in in_flight},
        cents_in_flight=sum(int(row.cents) for row in in_flight),
        batches_held=[{"batch_id": row.batch_id, "run_id": row.holder} for row in leases],
        halted=why_halted(session, environment().transfers.halted),
        alerts=[
            {
                "rule": alert.rule,
                "subject": alert.subject,
                "severity": alert.severity,
                "opened_at": alert.opened_at.isoformat(),
                "detail": alert.detail,
            }
            for alert in alerts
        ],
    )


def _runs(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=list(statuses)))


def _jobs(instance: dg.DagsterInstance, now: datetime) -> list[JobStanding]:
    repository = definitions.get_repository_def()
    switched = {
        state.instigator_name: state.status
        for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR)
        for state in instance.all_instigator_state(instigator_type=kind)
    }
    automations: dict[str, Automation] = {one.job_name: one for one in repository.schedule_defs}
    launching_none: list[Automation] = []
    for sensor in repository.sensor_defs:
        automations |= {target.job_name: sensor for target in sensor.targets}
        if not sensor.targets:
            launching_none.append(sensor)
    standings = [
        _standing(instance, job.name, automations.get(job.name), switched, now)
        for job in sorted(repository.get_all_jobs(), key=lambda job: job.name)
        if not job.name.startswith("__")
    ]
    return standings + [_standing(instance, one.name, one, switched, now) for one in launching_none]


def _standing(
    instance: dg.DagsterInstance,
    name: str,
    automation: Automation | None,
    switched: dict[str, InstigatorStatus],
    now: datetime,
) -> JobStanding:
    records = instance.get_run_records(dg.RunsFilter(job_name=name), limit=1)
    state = None
    next_tick = None
    if automation is not None:
        by_default = automation.default_status.value
        status = switched.get(automation.name, InstigatorStatus.DECLARED_IN_CODE)
        state = by_default if status is InstigatorStatus.DECLARED_IN_CODE else status.value
    if isinstance(automation, dg.ScheduleDefinition) and state == "RUNNING":
        ticks = schedule_execution_time_iterator(
            now.timestamp(), automation.cron_schedule, automation.execution_timezone
        )
        next_tick = next(ticks).astimezone(UTC).isoformat()
    return JobStanding(
        name=name,
        automation=automation.name if automation is not None else None,
        state=state,
        last_run_status=records[0].dagster_run.status.value if records else None,
        last_run_at=records[0].create_timestamp.isoformat() if records else None,
        next_tick_at=next_tick,
    )


def _print(console: Console, standing: Standing) -> None:
    jobs = Table(title="Jobs and sensors (times in UTC)", title_justify="left", box=box.SIMPLE)
    for header in ("job", "is", "last run", "at", "next tick"):
        jobs.add_column(header, no_wrap=True)
    for job in standing.jobs:
        jobs.add_row(
            *(job.name, _coloured(job.state or "by hand"), _coloured(job.last_run_status)),
            *(_short(job.last_run_at), _short(job.next_tick_at)),
        )
    console.print(jobs)
    batches = ", ".join(f"{number} {status}" for status, number in standing.batches.items()) or "none"
    flight = ", ".join(f"{number} {status}" for status, number in standing.transactions_in_flight.items())
    console.print(f"Batches: {batches}.", highlight=False)
    console.print(
        f"In flight: {flight} (${standing.cents_in_flight / 100:,.2f})." if flight else "In flight: nothing.",
        highlight=False,
    )
    for held in standing.batches_held:
        console.print(f"Batch {held['batch_id']} is being sent by run {held['run_id']}.", highlight=False)
    console.print(f"Runs: {standing.runs_queued} queued, {standing.runs_under_way} under way.", highlight=False)
    if standing.halted is not None:
        console.print(Text(standing.halted, "red"))
    if not standing.alerts:
        console.print("Open alerts: none.")
        return
    alerts = Table(title="Open alerts", title_justify="left")
    for header in ("severity", "rule", "about", "since (UTC)", "what"):
        alerts.add_column(header, overflow="fold")
    for alert in standing.alerts:
        alerts.add_row(
            *(_coloured(alert["severity"]), alert["rule"], alert["subject"]),
            *(_short(alert["opened_at"]), alert["detail"]),
        )
    console.print(alerts)


def _coloured(word: str | None) -> Text:
    return Text(word or "-", _COLOURS.get(word or "", ""))


def _short(moment: str | None) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%d %b %H:%M:%S") if moment else "-"
