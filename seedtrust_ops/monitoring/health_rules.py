"""The ten health rules with their thresholds from the environment, and the facts from Dagster that two of them need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_db.ticks import read_ticks
from seedtrust_ops.database.engine import dagster_url
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.backlog import DRS_OVERDUE, REPORTS_WAITING, drs_overdue, reports_waiting
from seedtrust_ops.domain.health.batches import BATCH_STUCK, TRANSFERS_HALTED, batch_stuck, transfers_halted
from seedtrust_ops.domain.health.ledger import LEDGER_MISMATCH, ledger_mismatch
from seedtrust_ops.domain.health.outbox_backlog import notifications_failing
from seedtrust_ops.domain.health.rule import Rule
from seedtrust_ops.domain.health.runs import (
    ERROR_SPIKE,
    EXPIRED_RUNS,
    PENDING_ACCUMULATING,
    WatchedJob,
    error_spike,
    expired_runs,
    pending_accumulating,
)
from seedtrust_ops.domain.health.schedule_ticks import SCHEDULE_MISSED, Automation, schedule_missed
from seedtrust_ops.domain.outbox.email_claims import NOTIFICATIONS_FAILING
from seedtrust_ops.domain.outbox.event_store import Destination
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.severity import Severity

NO_JOB_SEVERITY = Severity.HIGH
"""The severity of a sensor that launches no job: JobRun stands still without it, or nobody is told of trouble."""
WATCHED_JOB_OF_RULE = {
    TRANSFERS_HALTED: "process_huntington_batch",
    BATCH_STUCK: "process_huntington_batch",
    LEDGER_MISMATCH: "process_huntington_batch",
    REPORTS_WAITING: "report_generation",
    DRS_OVERDUE: "dr_auto_approval",
}
"""The rules that look at work rather than at our runs, by the job whose work it is: while that job is in shadow, a
legacy system does the work, and its watchers are paged."""


def health_rules(
    repository: dg.RepositoryDefinition, *, now: datetime, awake_since: datetime, told: Sequence[Destination]
) -> list[Rule]:
    """Return the rules, cheap ones first.

    Args:
        repository: what Dagster has loaded; its jobs and what launches them.
        now: aware.
        awake_since: when the daemon last came back (aware).
        told: the destinations of events that are configured.
    """
    watching, transfers = get_settings().health_thresholds, get_settings().transfers
    launches = _launches(repository)
    severities = {name: _severity_of(name) for launched in launches.values() for name in launched}
    jobs = [
        WatchedJob(name, severity, watching.failures_in_a_row(name, severity)) for name, severity in severities.items()
    ]

    def missed(_session: Session) -> Sequence[Finding]:
        return schedule_missed(
            _automations(launches, now),
            now=now,
            awake_since=awake_since,
            missed_seconds=watching.missed_seconds,
        )

    rules = [
        Rule(TRANSFERS_HALTED, partial(transfers_halted, halted_by_environment=transfers.halted)),
        Rule(
            BATCH_STUCK,
            partial(
                batch_stuck,
                queued_seconds=watching.batch_queued_seconds,
                processing_seconds=watching.batch_stuck_seconds,
                transaction_seconds=watching.transactions_stuck_seconds,
                halted_by_environment=transfers.halted,
            ),
        ),
        Rule(
            ERROR_SPIKE,
            partial(
                error_spike, jobs=jobs, window_seconds=watching.window_seconds, most_in_window=watching.failed_runs
            ),
        ),
        Rule(
            EXPIRED_RUNS,
            partial(
                expired_runs, jobs=jobs, window_seconds=watching.window_seconds, most_in_window=watching.expired_runs
            ),
        ),
        Rule(
            PENDING_ACCUMULATING,
            partial(pending_accumulating, most=watching.pending_runs, longest_seconds=watching.pending_seconds),
        ),
        Rule(SCHEDULE_MISSED, missed),
        Rule(REPORTS_WAITING, partial(reports_waiting, longest_seconds=watching.reports_waiting_seconds)),
        Rule(DRS_OVERDUE, partial(drs_overdue, longest_seconds=watching.drs_overdue_seconds)),
        Rule(
            NOTIFICATIONS_FAILING,
            partial(notifications_failing, longest_seconds=watching.outbox_wait_seconds, told=told),
        ),
        Rule(LEDGER_MISMATCH, ledger_mismatch, every_seconds=watching.ledger_every_seconds),
    ]
    return [replace(rule, find=_nothing) if _is_in_shadow(WATCHED_JOB_OF_RULE.get(rule.name)) else rule for rule in rules]


def _launches(repository: dg.RepositoryDefinition) -> dict[str, list[str]]:
    """Return, by schedule or sensor, the names of the jobs that it launches."""
    launches = {schedule.name: [schedule.job_name] for schedule in repository.schedule_defs}
    return launches | {sensor.name: [target.job_name for target in sensor.targets] for sensor in repository.sensor_defs}


def _automations(launches: Mapping[str, Sequence[str]], now: datetime) -> list[Automation]:
    engine = create_engine(dagster_url(), poolclass=NullPool)
    with engine.connect() as connection:
        ticking = read_ticks(
            connection,
            zone=ZoneInfo(get_settings().location.timezone),
            dev_env=get_settings().location.dev_env,
            now=now,
        )
    return [
        Automation(
            one.name,
            _worst(launches[one.name]),
            one.due_at,
            None if one.last_tick_status in (None, "SUCCESS", "SKIPPED") else one.last_tick_status,
        )
        for one in ticking
        # A name that the code knows no more is a schedule or sensor of an older release.
        if one.due_at is not None and one.name in launches
    ]


def _is_in_shadow(job: str | None) -> bool:
    try:
        return job is not None and get_settings().shadow.covers(job)
    except ConfigurationError:
        # Every job fails with it, and people are to hear of that.
        return False


def _nothing(_session: Session) -> Sequence[Finding]:
    return ()


def _severity_of(job: str) -> Severity:
    """Return how bad it is when the job fails; in shadow it is never worth waking anybody."""
    return Severity.LOW if _is_in_shadow(job) else job_policy(job).severity


def _worst(jobs: Sequence[str]) -> Severity:
    severities = [_severity_of(job) for job in jobs]
    return max(severities, key=lambda severity: severity.priority, default=NO_JOB_SEVERITY)
