"""Looks at the health rules again and again, tells people of what they find, and pings the monitor outside.

It launches nothing. The rules are `domain/health/`, what is told to whom `domain/alerting/`.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import AwareDatetime, BaseModel, ValidationError

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.health_thresholds import HealthThresholds
from seedtrust_ops.domain.alert_notifications.digest import digest_day
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.domain.health.evaluator import Evaluation, evaluate
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.monitoring.alert_channels import AlertDelivery, AlertChannels, send_due_notifications, enqueue_alert_notifications, configured_channels
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
"""A look that comes so much later than it should have means that the daemon was away."""


class HealthCursor(BaseModel):
    """What one look leaves to the next, in the sensor's cursor."""

    last_look: AwareDatetime | None = None
    awake_since: AwareDatetime | None = None
    last_asked: dict[str, AwareDatetime] = {}
    digest_of: date | None = None
    is_untold: bool = False
    """Something was to be told, every way of telling failed, and none has worked since."""


def _interval_seconds() -> int:
    """Return how often to look. A threshold that can't be used must stop this sensor's ticks, and nothing else."""
    try:
        return get_settings().health_thresholds.interval_seconds
    except ConfigurationError:
        return int(HealthThresholds.model_fields["interval_seconds"].default)


@dg.sensor(
    name="job_health_sensor",
    minimum_interval_seconds=_interval_seconds(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for trouble that no run tells of by itself, and tells people once of each.",
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
    """Ask the rules, tell what is new, deliver it, ping."""
    assert context.repository_def is not None, "a sensor is evaluated in its code location"
    with user_facing_failures():
        ways = configured_channels(mail, internal_api, posthog)
        memory, words = look(context.repository_def, database.sessions(), ways, _recall(context.cursor))
        context.update_cursor(memory.model_dump_json())
        unheard = heartbeat.ping(telling_works=not memory.is_untold, words=words)
    return dg.SkipReason(f"{words} {unheard}" if unheard else words)


def look(
    repository: dg.RepositoryDefinition,
    sessions: Sessions,
    ways: AlertChannels,
    memory: HealthCursor,
    *,
    now: datetime | None = None,
) -> tuple[HealthCursor, str]:
    """Look once at everything, and tell people.

    Args:
        repository: what Dagster has loaded.
        sessions: on the application's database.
        ways: by which people can be told.
        memory: what the last look left.
        now: aware; the machine's clock where it is not given.

    Returns:
        What to remember, and what came of it, in sentences.
    """
    now = now or datetime.now(UTC)
    watching = get_settings().health_thresholds
    awake_since = _awake_since(memory, now, timedelta(seconds=watching.interval_seconds))
    evaluation = evaluate(
        sessions,
        health_rules(repository, now=now, awake_since=awake_since, told=list(ways.takers)),
        now=now,
        last_asked=memory.last_asked,
        quiet_seconds=watching.quiet_seconds,
        longest_seconds=MAX_RULES_SECONDS,
    )
    day = digest_day(now, ZoneInfo(get_settings().location.timezone), watching.digest_hour)
    told = enqueue_alert_notifications(sessions, ways, digest_of=None if day == memory.digest_of else day)
    delivery = send_due_notifications(sessions, ways)
    remembered = HealthCursor(
        last_look=now,
        awake_since=awake_since,
        last_asked=memory.last_asked | dict.fromkeys(evaluation.asked, now),
        digest_of=day or memory.digest_of,
        is_untold=_is_untold(memory, ways, delivery, told),
    )
    return remembered, _in_words(evaluation, ways, delivery)


def _awake_since(memory: HealthCursor, now: datetime, interval: timedelta) -> datetime:
    if memory.last_look is None or memory.awake_since is None or now - memory.last_look > interval + DOWNTIME_THRESHOLD:
        return now
    return memory.awake_since


def _is_untold(memory: HealthCursor, ways: AlertChannels, delivery: AlertDelivery, told: int) -> bool:
    if delivery.letters or delivery.events:
        return False
    configured = {*ways.takers, *(["letters"] if ways.emails else [])}
    is_something_to_tell = told > 0 or bool(delivery.troubles)
    return memory.is_untold or (is_something_to_tell and configured <= set(delivery.troubles))


def _in_words(evaluation: Evaluation, ways: AlertChannels, delivery: AlertDelivery) -> str:
    sentences = [
        f"{evaluation.found} in trouble; alerts: {evaluation.opened} opened, {evaluation.resolved} resolved; "
        f"{delivery.letters} letters and {delivery.events} events delivered."
    ]
    sentences += evaluation.failures
    if evaluation.unasked:
        sentences.append(f"There was no time for {', '.join(evaluation.unasked)}.")
    return " ".join([*sentences, *delivery.troubles.values(), *ways.missing.values()])


def _recall(cursor: str | None) -> HealthCursor:
    """Return what the cursor says; one that can't be read (people may edit it) means a first look."""
    try:
        return HealthCursor.model_validate_json(cursor or "{}")
    except ValidationError:
        return HealthCursor()
