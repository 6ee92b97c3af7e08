"""Builds the health rules of `domain/health` with their thresholds, and reads the Dagster data they need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from zoneinfo import ZoneInfo

import dagster as dg
from sqlalchemy import NullPool, create_engine
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_db.daemon_activity import due_times, read_ticks
from seedtrust_ops.database.engine import dagster_url
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.backlog import (
    DRS_OVERDUE,
    REPORTS_WAITING,
    drs_overdue,
    notifications_failing,
    reports_waiting,
)
from seedtrust_ops.domain.health.batches import (
    BATCH_HELD,
    BATCH_STUCK,
    TRANSFERS_HALTED,
    batch_held,
    batch_stuck,
    transfers_halted,
)
from seedtrust_ops.domain.health.funding import INSUFFICIENT_FUNDING, insufficient_funding
from seedtrust_ops.domain.health.ledger import LEDGER_MISMATCH, ledger_mismatch
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.domain.health.runs import (
    ERROR_SPIKE,
    EXPIRED_RUNS,
    PENDING_ACCUMULATING,
    SCHEDULE_MISSED,
    Automation,
    WatchedJob,
    error_spike,
    expired_runs,
    pending_accumulating,
    schedule_missed,
)
from seedtrust_ops.domain.health.settlement import SETTLEMENT_OVERDUE, settlement_overdue
from seedtrust_ops.domain.health.unknown_transfers import unknown_transfer
from seedtrust_ops.domain.outbox.email_sink import NOTIFICATIONS_FAILING
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.domain.transfers.unknown_transfers import UNKNOWN_TRANSFER_RULE
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.severity import Severity

NO_JOB_SEVERITY = Severity.HIGH
"""The severity of a sensor that launches no job: without it JobRun is not updated, or nobody is notified of alerts."""
JOB_COVERED_BY_RULE = {
    TRANSFERS_HALTED: "process_huntington_batch",
    BATCH_STUCK: "process_huntington_batch",
    INSUFFICIENT_FUNDING: "process_huntington_batch",
    BATCH_HELD: "process_huntington_batch",
    UNKNOWN_TRANSFER_RULE: "auto_heal_huntington_batches",
    LEDGER_MISMATCH: "process_huntington_batch",
    SETTLEMENT_OVERDUE: "process_huntington_batch",
    REPORTS_WAITING: "report_generation",
    DRS_OVERDUE: "dr_auto_approval",
}
"""For rules that check work rather than runs: the job that does the work. While that job is in shadow mode, a legacy
system does the work and its own monitoring covers it."""


def health_rules(
    repository: dg.RepositoryDefinition,
    *,
    now: datetime,
    daemon_up_since: datetime,
    destinations: Sequence[Destination],
) -> list[HealthRule]:
    """Return the rules in the order of evaluation, cheap ones first.

    Args:
        repository: the loaded definitions, with the jobs and the schedules and sensors that launch them.
        now: aware.
        daemon_up_since: when the daemon last came back (aware).
        destinations: the event destinations that are configured.
    """
    thresholds, transfers = get_settings().alert_thresholds, get_settings().transfers
    stuck = thresholds.stuck_after(transfers.unknown_grace_seconds)
    jobs_by_automation = _jobs_by_automation(repository)
    severities = {name: _severity_of(name) for launched in jobs_by_automation.values() for name in launched}
    pauses = _seconds_between_runs(repository, now)
    jobs = [
        WatchedJob(name, severity, thresholds.failures_in_a_row(name, severity, pauses.get(name)))
        for name, severity in severities.items()
    ]

    def missed(_session: Session) -> Sequence[Finding]:
        return schedule_missed(
            _automations(jobs_by_automation, now),
            now=now,
            daemon_up_since=daemon_up_since,
            missed_seconds=thresholds.missed_seconds,
        )

    rules = [
        HealthRule(TRANSFERS_HALTED, partial(transfers_halted, halted_by_environment=transfers.halted)),
        HealthRule(
            BATCH_STUCK,
            partial(
                batch_stuck,
                queued_seconds=thresholds.batch_queued_seconds,
                processing_seconds=stuck.batch_seconds,
                transaction_seconds=stuck.transaction_seconds,
                halted_by_environment=transfers.halted,
            ),
        ),
        HealthRule(BATCH_HELD, batch_held),
        HealthRule(UNKNOWN_TRANSFER_RULE, unknown_transfer),
        HealthRule(INSUFFICIENT_FUNDING, insufficient_funding),
        HealthRule(
            ERROR_SPIKE,
            partial(
                error_spike, jobs=jobs, window_seconds=thresholds.window_seconds, window_limit=thresholds.failed_runs
            ),
        ),
        HealthRule(
            EXPIRED_RUNS,
            partial(
                expired_runs, jobs=jobs, window_seconds=thresholds.window_seconds, window_limit=thresholds.expired_runs
            ),
        ),
        HealthRule(
            PENDING_ACCUMULATING,
            partial(
                pending_accumulating, max_pending=thresholds.pending_runs, max_wait_seconds=thresholds.pending_seconds
            ),
        ),
        HealthRule(SCHEDULE_MISSED, missed),
        HealthRule(REPORTS_WAITING, partial(reports_waiting, max_wait_seconds=thresholds.reports_waiting_seconds)),
        HealthRule(DRS_OVERDUE, partial(drs_overdue, max_overdue_seconds=thresholds.drs_overdue_seconds)),
        HealthRule(
            NOTIFICATIONS_FAILING,
            partial(notifications_failing, max_wait_seconds=thresholds.outbox_wait_seconds, destinations=destinations),
        ),
        HealthRule(SETTLEMENT_OVERDUE, partial(settlement_overdue, now=now)),
        HealthRule(LEDGER_MISMATCH, ledger_mismatch, min_interval_seconds=thresholds.ledger_every_seconds),
    ]
    return [
        replace(rule, find=_find_nothing) if _is_in_shadow(JOB_COVERED_BY_RULE.get(rule.name)) else rule
        for rule in rules
    ]


def _jobs_by_automation(repository: dg.RepositoryDefinition) -> dict[str, list[str]]:
    """Return the names of the jobs that each schedule or sensor launches."""
    jobs_by_automation = {schedule.name: [schedule.job_name] for schedule in repository.schedule_defs}
    return jobs_by_automation | {
        sensor.name: [target.job_name for target in sensor.targets] for sensor in repository.sensor_defs
    }


def _seconds_between_runs(repository: dg.RepositoryDefinition, now: datetime) -> dict[str, float]:
    """Return how long each scheduled job takes from its next tick to the one after."""
    zone = ZoneInfo(get_settings().location.timezone)
    seconds = {}
    for schedule in repository.schedule_defs:
        crons = schedule.cron_schedule
        first, second = islice(due_times([crons] if isinstance(crons, str) else list(crons), now, zone), 2)
        seconds[schedule.job_name] = (second - first).total_seconds()
    return seconds


def _automations(jobs_by_automation: Mapping[str, Sequence[str]], now: datetime) -> list[Automation]:
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
            _worst_severity(jobs_by_automation[one.name]),
            one.due_at,
            None if one.last_tick_status in (None, "SUCCESS", "SKIPPED") else one.last_tick_status,
        )
        for one in ticking
        # A name that is no longer in the code belongs to a schedule or sensor of an older release.
        if one.due_at is not None and one.name in jobs_by_automation
    ]


def _is_in_shadow(job: str | None) -> bool:
    try:
        return job is not None and get_settings().shadow.covers(job)
    except ConfigurationError:
        # Every job fails with this error, so the rules must stay active for people to be notified.
        return False


def _find_nothing(_session: Session) -> Sequence[Finding]:
    return ()


def _severity_of(job: str) -> Severity:
    """Return the severity of the job's failures; in shadow mode it is always LOW."""
    return Severity.LOW if _is_in_shadow(job) else job_policy(job).severity


def _worst_severity(jobs: Sequence[str]) -> Severity:
    severities = [_severity_of(job) for job in jobs]
    return max(severities, key=lambda severity: severity.priority, default=NO_JOB_SEVERITY)
