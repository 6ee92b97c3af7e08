"""The health sensor: evaluates the health rules, notifies people of alerts, and pings the external monitor.

It launches no runs. The rules are in `domain/health`; who is notified is decided in `domain/alert_notifications`.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import AwareDatetime, BaseModel, ValidationError

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.alert_thresholds import AlertThresholds
from seedtrust_ops.domain.alert_notifications.digest import digest_day
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.health.evaluator import Evaluation, evaluate
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.monitoring.alert_channels import (
    AlertChannels,
    AlertDelivery,
    configured_channels,
    notify_people,
)
from seedtrust_ops.monitoring.health_rules import health_rules
from seedtrust_ops.orchestration.dagster_resources import (
    DatabaseResource,
    HeartbeatResource,
    InternalApiResource,
    MailResource,
    PostHogResource,
)
from seedtrust_ops.orchestration.job_factory import owners_and_tags
from seedtrust_ops.orchestration.user_facing_failures import user_facing_failures

MAX_RULES_SECONDS = 15.0
DOWNTIME_THRESHOLD = timedelta(seconds=60)
"""A tick that is this late means that the daemon was down."""


class HealthCursor(BaseModel):
    """The sensor's cursor: what one tick passes on to the next."""

    last_tick_at: AwareDatetime | None = None
    daemon_up_since: AwareDatetime | None = None
    last_evaluated: dict[str, AwareDatetime] = {}
    digest_of: date | None = None


def _interval_seconds() -> int:
    """Return the interval between ticks. An invalid threshold must fail this sensor's ticks and nothing else."""
    try:
        return get_settings().alert_thresholds.interval_seconds
    except ConfigurationError:
        return int(AlertThresholds.model_fields["interval_seconds"].default)


@dg.sensor(
    name="job_health_sensor",
    minimum_interval_seconds=_interval_seconds(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Evaluates the health rules, notifies people once of each alert, and pings the external monitor.",
    **owners_and_tags("job_health_sensor"),
)
def job_health_sensor(
    context: dg.SensorEvaluationContext,
    database: DatabaseResource,
    mail: MailResource,
    internal_api: InternalApiResource,
    posthog: PostHogResource,
    heartbeat: HeartbeatResource,
) -> dg.SkipReason:
    """Evaluate the rules, notify people, ping the monitor."""
    assert context.repository_def is not None, "a sensor is evaluated in its code location"
    with user_facing_failures():
        channels = configured_channels(mail, internal_api, posthog)
        cursor, delivery, summary = run_health_tick(
            context.repository_def, database.sessions(), channels, _parse_cursor(context.cursor)
        )
        context.update_cursor(cursor.model_dump_json())
        ping_error = heartbeat.ping(alerts_delivered=not delivery.has_untold_alerts, summary=summary)
    return dg.SkipReason(f"{summary} {ping_error}" if ping_error else summary)


def run_health_tick(
    repository: dg.RepositoryDefinition,
    sessions: Sessions,
    channels: AlertChannels,
    cursor: HealthCursor,
    *,
    now: datetime | None = None,
) -> tuple[HealthCursor, AlertDelivery, str]:
    """Evaluate the rules that are due and notify people.

    Args:
        repository: the loaded definitions.
        sessions: on the application's database.
        channels: the channels by which people are notified.
        cursor: what the last tick passed on.
        now: aware; None means the current time.

    Returns:
        The new cursor, what was delivered, and a summary in sentences.
    """
    now = now or datetime.now(UTC)
    thresholds = get_settings().alert_thresholds
    daemon_up_since = _daemon_up_since(cursor, now, timedelta(seconds=thresholds.interval_seconds))
    evaluation = evaluate(
        sessions,
        health_rules(repository, now=now, daemon_up_since=daemon_up_since, destinations=list(channels.sinks)),
        now=now,
        last_evaluated=cursor.last_evaluated,
        quiet_seconds=thresholds.quiet_seconds,
        max_seconds=MAX_RULES_SECONDS,
    )
    day = digest_day(now, ZoneInfo(get_settings().location.timezone), thresholds.digest_hour)
    delivery = notify_people(sessions, channels, now=now, digest_of=None if day == cursor.digest_of else day)
    next_cursor = HealthCursor(
        last_tick_at=now,
        daemon_up_since=daemon_up_since,
        last_evaluated=cursor.last_evaluated | dict.fromkeys(evaluation.evaluated, now),
        # Without an address no digest was queued: it stays due for the rest of the day.
        digest_of=day if day is not None and channels.emails else cursor.digest_of,
    )
    return next_cursor, delivery, _summarize(evaluation, channels, delivery)


def _daemon_up_since(cursor: HealthCursor, now: datetime, interval: timedelta) -> datetime:
    if (
        cursor.last_tick_at is None
        or cursor.daemon_up_since is None
        or now - cursor.last_tick_at > interval + DOWNTIME_THRESHOLD
    ):
        return now
    return cursor.daemon_up_since


def _summarize(evaluation: Evaluation, channels: AlertChannels, delivery: AlertDelivery) -> str:
    sentences = [
        f"Findings: {evaluation.found}. Alerts: {evaluation.opened} opened, {evaluation.resolved} resolved. "
        f"Emails sent: {delivery.emails}. Events sent: {delivery.events}."
    ]
    sentences += evaluation.failures
    if evaluation.postponed:
        sentences.append(f"Not evaluated on this tick for lack of time: {', '.join(evaluation.postponed)}.")
    return " ".join([*sentences, *delivery.errors.values(), *channels.missing.values()])


def _parse_cursor(text: str | None) -> HealthCursor:
    """Return the parsed cursor; an empty one, as on the first tick, if it is invalid (people may edit it)."""
    try:
        return HealthCursor.model_validate_json(text or "{}")
    except ValidationError:
        return HealthCursor()


defs = dg.Definitions(sensors=[job_health_sensor])
