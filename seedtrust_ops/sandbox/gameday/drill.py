"""Runs one incident: causes it, waits until it is detected and people are notified, ends it, and reconciles the money.

Detection reads only what people would see and knows nothing of the cause. At the end, JobRun is compared with Dagster's
runs. The incidents are in `incidents`; the table of results is printed by `report`.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.jobs.process_huntington_batch import NAME as PROCESS_BATCH
from seedtrust_ops.sandbox.demo.environment import ON_CALL, CommandFailed, DemoEnvironment
from seedtrust_ops.sandbox.demo.reconciliation import reconcile
from seedtrust_ops.sandbox.gameday.incidents import CauseFailed, Incident, queue_payments
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction, JobRun, ReportRequest

POLL_SECONDS = 0.3
DETECTION_SECONDS = 60.0
"""Each incident must be detected within the rule's own threshold plus 60 seconds."""
NOTIFICATION_SECONDS = 40.0
"""How long notification may take after detection: the outbox is emptied by a sensor tick."""
RECOVERY_SECONDS = 240.0
CATCH_UP_SECONDS = 60.0
RESOLUTIONS = {
    dg.DagsterRunStatus.SUCCESS: {"COMPLETED"},
    dg.DagsterRunStatus.FAILURE: {"ERROR"},
    dg.DagsterRunStatus.CANCELED: {"REVOKED", "EXPIRED"},
}
EMAIL_CHANNEL = f"email to {ON_CALL}"

PrintMessage = Callable[[str], None]


@dataclass
class Detection:
    """What is known so far about an incident's detection; timestamps are UTC."""

    rules: Collection[str]
    """The alert rules that count as detecting the incident."""
    since: datetime
    """When the incident began; earlier alerts do not count."""
    rule: str | None = None
    """The rule that detected it first."""
    detected_at: datetime | None = None
    notified: set[str] = field(default_factory=set)
    """The channels that were notified."""

    def update(self, env: DemoEnvironment) -> None:
        """Check all sources again."""
        self._check_alerts(env)
        self._check_emails(env)
        self._check_posts(env)

    def _record(self, rule: str, at: datetime) -> None:
        if self.detected_at is None or at < self.detected_at:
            self.rule, self.detected_at = rule, at

    def _check_alerts(self, env: DemoEnvironment) -> None:
        query = select(Alert).where(Alert.rule.in_(self.rules), Alert.opened_at >= self.since).order_by(Alert.opened_at)
        try:
            with env.sessions() as session:
                first = session.scalars(query.limit(1)).first()
        except DBAPIError:
            # The incident may be the database itself; then an email is the first sign.
            return
        if first is not None:
            self._record(first.rule, first.opened_at)

    def _check_emails(self, env: DemoEnvironment) -> None:
        try:
            emails = env.stack.mailbox.control.emails(ON_CALL)
        except httpx.HTTPError:
            # The incident may be the mail server itself.
            return
        for email in emails:
            at = datetime.fromisoformat(email.at)
            rule = next((rule for rule in self.rules if rule in email.text), None)
            if at >= self.since and rule is not None:
                self._record(rule, at)
                self.notified.add(EMAIL_CHANNEL)

    def _check_posts(self, env: DemoEnvironment) -> None:
        services = env.stack.services
        for event in services.posthog.events("alert_opened"):
            if event["properties"].get("rule") in self.rules and _parse(event["timestamp"]) >= self.since:
                self.notified.add("PostHog")
        for post in services.internal_api.posted_statuses():
            if post["component"] == "jobs" and post["status"] != "up" and _parse(post["checked_at"]) >= self.since:
                self.notified.add("internal API")


@dataclass(frozen=True)
class Result:
    """The result of one incident; seconds are counted from the moment it was caused."""

    incident: Incident
    detection: Detection
    detected_after_seconds: float | None
    remaining_problem: str | None
    """What was still wrong RECOVERY_SECONDS after the incident ended; None if everything recovered."""
    reconciled: bool
    cause_error: str | None = None
    """Why the incident could not be caused or ended, if so."""

    @property
    def limit_seconds(self) -> float:
        """The time within which it must be detected."""
        return self.incident.threshold_seconds + DETECTION_SECONDS

    @property
    def passed(self) -> bool:
        """Whether it was detected in time, people were notified, everything recovered, and no cent differs."""
        return (
            self.cause_error is None
            and self.detected_after_seconds is not None
            and self.detected_after_seconds <= self.limit_seconds
            and bool(self.detection.notified)
            and self.remaining_problem is None
            and self.reconciled
        )


def run_incident(env: DemoEnvironment, incident: Incident, print_message: PrintMessage) -> Result:
    """Run `incident` in an environment without open problems; return its result."""
    detection = Detection(incident.rules, datetime.now(UTC))
    print_message(f"Causing incident: {incident.name}")
    try:
        with incident.cause(env):
            # The time needed to set up the incident does not count.
            detection.since = datetime.now(UTC)
            _wait_for_detection(env, detection, incident)
            print_message(_summarize(detection))
        # The next batch must go through for the incident to count as recovered.
        queue_payments(env)
    except (CauseFailed, CommandFailed) as error:
        print_message(f"Incident {incident.name} could not be caused or ended: {error}")
        return Result(incident, detection, None, None, False, str(error))
    problem = wait_for_recovery(env)
    with env.sessions() as session:
        reconciled = reconcile(session, env.bank).agrees
    after = (detection.detected_at - detection.since).total_seconds() if detection.detected_at is not None else None
    print_message(
        f"Recovered from incident: {incident.name}"
        if problem is None
        else f"NOT recovered from incident {incident.name}: {problem}"
    )
    return Result(incident, detection, after, problem, reconciled)


def wait_for_first_batch(env: DemoEnvironment, seconds: float = RECOVERY_SECONDS) -> str | None:
    """Queue a batch and wait until JobRun shows that a batch was sent; return an error message after `seconds`."""
    queue_payments(env)
    sent = select(JobRun.id).where(JobRun.task_name == PROCESS_BATCH, JobRun.resolution == "COMPLETED")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with env.sessions() as session:
            if session.scalars(sent).first() is not None:
                return None
        time.sleep(POLL_SECONDS)
    return "the worker did not send a batch"


def wait_for_recovery(env: DemoEnvironment, seconds: float = RECOVERY_SECONDS) -> str | None:
    """Wait until no work is open and no alert is open; return what is still open after `seconds`, else None."""
    deadline = time.monotonic() + seconds
    while (problem := _open_problem(env)) is not None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return problem


def job_run_differences(
    sessions: sessionmaker[Session], instance: dg.DagsterInstance, *, seconds: float = CATCH_UP_SECONDS
) -> list[str]:
    """Compare JobRun with Dagster's own runs; return one sentence for each difference still there after `seconds`.

    It waits for the mirror to catch up, and returns as soon as there is no difference.
    """
    deadline = time.monotonic() + seconds
    while (found := _compare_job_runs(sessions, instance)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return found


def _wait_for_detection(env: DemoEnvironment, detection: Detection, incident: Incident) -> None:
    deadline = time.monotonic() + incident.threshold_seconds + DETECTION_SECONDS
    while detection.detected_at is None and time.monotonic() < deadline:
        detection.update(env)
        time.sleep(POLL_SECONDS)
    if detection.detected_at is None:
        return
    deadline = time.monotonic() + NOTIFICATION_SECONDS
    while time.monotonic() < deadline and not (
        EMAIL_CHANNEL in detection.notified or (detection.notified and not incident.email_works)
    ):
        time.sleep(POLL_SECONDS)
        detection.update(env)


def _open_problem(env: DemoEnvironment) -> str | None:
    batches = (
        select(func.count()).select_from(HuntingtonBatch).where(HuntingtonBatch.status.in_(("queued", "processing")))
    )
    transactions = (
        select(func.count())
        .select_from(HuntingtonTransaction)
        .where(HuntingtonTransaction.status.in_(("processing", "submitted")))
    )
    reports = select(func.count()).select_from(ReportRequest).where(ReportRequest.status.in_((1, 2)))
    alerts = select(Alert.rule, Alert.subject).where(Alert.resolved_at.is_(None)).order_by(Alert.id)
    try:
        with env.sessions() as session:
            for label, query in (("batches", batches), ("transactions", transactions), ("reports", reports)):
                if number := session.scalars(query).one():
                    return f"unfinished {label}: {number}"
            open_alerts = session.execute(alerts).all()
    except DBAPIError as error:
        return f"the database cannot be queried: {error.orig}"
    if open_alerts:
        return "open alerts: " + ", ".join(f"{row.rule} ({row.subject})" for row in open_alerts)
    return None


def _compare_job_runs(sessions: sessionmaker[Session], instance: dg.DagsterInstance) -> list[str]:
    with sessions() as session:
        rows = {row.run_id: row for row in session.scalars(select(JobRun))}
    runs = {run.run_id: run for run in instance.get_runs()}
    found = [f"Dagster run {run_id} has no JobRun row." for run_id in runs.keys() - rows.keys()]
    found += [f"JobRun row {run_id} has no Dagster run." for run_id in rows.keys() - runs.keys()]
    for run_id in runs.keys() & rows.keys():
        run, row = runs[run_id], rows[run_id]
        if row.resolution not in RESOLUTIONS.get(run.status, {None}):
            found.append(f"Run {run_id} of {run.job_name} is {run.status.value} in Dagster but {row.status} in JobRun.")
    return sorted(found)


def _summarize(detection: Detection) -> str:
    if detection.detected_at is None:
        return "NOT detected"
    notified = ", ".join(sorted(detection.notified)) or "nobody yet"
    seconds = (detection.detected_at - detection.since).total_seconds()
    return f"Detected by {detection.rule} after {seconds:.0f} s; notified: {notified}"


def _parse(timestamp: str) -> datetime:
    return datetime.fromisoformat(timestamp).astimezone(UTC)
