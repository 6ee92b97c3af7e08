"""Runs one incident: causes it, waits until it is detected and people are notified, ends it, and reconciles the money.

The incidents are in `incidents`; the table of results is printed by `report`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from seedtrust_ops.jobs.process_huntington_batch import NAME as PROCESS_BATCH
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.demo.reconciliation import reconcile
from seedtrust_ops.sandbox.gameday.detection import EMAIL_CHANNEL, Detection
from seedtrust_ops.sandbox.gameday.incidents import CauseFailed, Incident, queue_payments
from seedtrust_ops.sandbox.gameday.timeouts import DETECTION_SECONDS
from seedtrust_ops.tables import Alert, HuntingtonBatch, HuntingtonTransaction, JobRun, ReportRequest

POLL_SECONDS = 0.3
NOTIFICATION_SECONDS = 40.0
"""How long notification may take after detection: the outbox is emptied by a sensor tick."""
RECOVERY_SECONDS = 240.0

PrintMessage = Callable[[str], None]


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
    """Why the incident could not be caused, if so."""

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
    except CauseFailed as error:
        print_message(f"Incident {incident.name} could not be caused: {error}")
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


def _summarize(detection: Detection) -> str:
    if detection.detected_at is None:
        return "NOT detected"
    notified = ", ".join(sorted(detection.notified)) or "nobody yet"
    seconds = (detection.detected_at - detection.since).total_seconds()
    return f"Detected by {detection.rule} after {seconds:.0f} s; notified: {notified}"
