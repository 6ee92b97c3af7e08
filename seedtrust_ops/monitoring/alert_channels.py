"""The ways by which a health tick tells people, as the environment has them: what is told by them, and its delivery.

What is told is decided in `domain/alerting/`. A way that is missing or down keeps none of the others from telling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.alert_notifications.digest import notify_digest
from seedtrust_ops.domain.alert_notifications.jobs_component_status import enqueue_jobs_status
from seedtrust_ops.domain.alert_notifications.notifier import EnabledChannels, notify_opened, notify_resolved
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_claims import ALERT_KIND_NAMES
from seedtrust_ops.domain.outbox.email_dispatcher import send_due_emails
from seedtrust_ops.domain.outbox.email_store import count_due_emails
from seedtrust_ops.domain.outbox.event_dispatcher import abandon_all, send_due_events, purge_events
from seedtrust_ops.domain.outbox.event_store import Destination
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.events import EventRejected, EventSink
from seedtrust_ops.resources.internal_api_client import InternalApi

ANSWER_SECONDS = 3.0
"""How long one answer of the mail server or the internal API is waited for: a tick must end well within a minute."""
MAX_EVENT_SECONDS = 4.0
MAX_EMAIL_SECONDS = 8.0


@dataclass
class AlertChannels:
    """The mail server, whom to write to, who takes events, and a sentence for each way that is not there."""

    mail: MailResource
    emails: tuple[str, ...] = ()
    takers: dict[Destination, EventSink] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> EnabledChannels:
        """The ways, as those know them who decide what is told."""
        return EnabledChannels(
            self.emails,
            posthog=Destination.POSTHOG in self.takers,
            internal_api=Destination.INTERNAL_API in self.takers,
        )


@dataclass
class AlertDelivery:
    """What a delivery by all ways came to: how much was handed in, and a sentence for each way that took nothing."""

    letters: int = 0
    events: int = 0
    troubles: dict[str, str] = field(default_factory=dict)


class _Unusable:
    """Stands for a destination whose variables make no sense: what is for it waits until they are set right."""

    def __init__(self, error: ConfigurationError) -> None:
        self._error = error

    def take(self, _dedupe_key: str, _body: Mapping[str, Any], _at: datetime) -> None:
        raise self._error


class _StatusTaker:
    """Posts queued statuses to the internal API."""

    def __init__(self, api: InternalApi) -> None:
        self._api = api

    def take(self, _dedupe_key: str, body: Mapping[str, Any], _at: datetime) -> None:
        try:
            status = ComponentStatus(
                component=Component(body["component"]),
                status=Status(body["status"]),
                latency_ms=body["latency_ms"],
                checked_at=datetime.fromisoformat(body["checked_at"]),
                detail=body["detail"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EventRejected(f"What was queued for the internal API is no status: {error!r}.") from None
        self._api.post(status)


def configured_channels(mail: MailResource, internal_api: InternalApiResource, posthog: PostHogResource) -> AlertChannels:
    """Return the ways that the environment names."""
    ways = AlertChannels(mail)
    try:
        ways.emails = get_settings().alert_emails.emails
    except ConfigurationError as error:
        ways.missing["letters"] = f"{error} No letter tells of alerts."
    _add_internal_api(ways, internal_api)
    try:
        project = posthog.project()
    except ConfigurationError as error:
        ways.takers[Destination.POSTHOG] = _Unusable(error)
        return ways
    if project is None:
        ways.missing[Destination.POSTHOG] = "POSTHOG_API_KEY is not set. PostHog is not told."
    else:
        ways.takers[Destination.POSTHOG] = project
    return ways


def _add_internal_api(ways: AlertChannels, internal_api: InternalApiResource) -> None:
    try:
        if get_settings().shadow.all_jobs:
            # The legacy systems do the work, and how they are is for them to say.
            ways.missing[Destination.INTERNAL_API] = "All jobs are in shadow. The internal API is not told."
            return
        ways.takers[Destination.INTERNAL_API] = _StatusTaker(internal_api.api(timeout_seconds=ANSWER_SECONDS))
    except ConfigurationError as error:
        ways.missing[Destination.INTERNAL_API] = f"{error} The internal API is not told."


def enqueue_alert_notifications(sessions: Sessions, ways: AlertChannels, *, digest_of: date | None) -> int:
    """Queue what is to be told by these ways; return of how many alerts people are told at once.

    `digest_of` is the day whose digest is due, None where none is.
    """
    channels = ways.channels
    told = run_in_transaction(sessions, partial(notify_opened, channels=channels))
    told += run_in_transaction(sessions, partial(notify_resolved, channels=channels))
    if channels.internal_api:
        run_in_transaction(sessions, enqueue_jobs_status)
    if digest_of is not None:
        run_in_transaction(sessions, partial(notify_digest, emails=channels.emails, day=digest_of))
        run_in_transaction(sessions, purge_events)
    return told


def send_due_notifications(sessions: Sessions, ways: AlertChannels) -> AlertDelivery:
    """Hand in the events and alert letters that are due, each way for its own few seconds at most."""
    delivery = AlertDelivery()
    for destination in Destination:
        taker = ways.takers.get(destination)
        if taker is None:
            run_in_transaction(
                sessions, partial(abandon_all, destination=destination, reason=ways.missing[destination])
            )
            continue
        report = send_due_events(sessions, destination, taker, longest_seconds=MAX_EVENT_SECONDS)
        delivery.events += report.sent
        if report.trouble is not None:
            delivery.troubles[destination] = report.trouble
    _deliver_letters(sessions, ways.mail, delivery)
    return delivery


def _deliver_letters(sessions: Sessions, mail: MailResource, delivery: AlertDelivery) -> None:
    kinds = sorted(ALERT_KIND_NAMES)
    if not run_in_transaction(sessions, partial(count_due_emails, kinds=kinds)):
        return
    try:
        with mail.open(answer_seconds=ANSWER_SECONDS) as office:
            report = send_due_emails(
                sessions,
                office,
                EmailRenderer(ZoneInfo(get_settings().location.timezone)),
                longest_seconds=MAX_EMAIL_SECONDS,
                kinds=kinds,
            )
    except SeedTrustError as error:
        delivery.troubles["letters"] = str(error)
        return
    delivery.letters = report.sent
    if report.trouble is not None:
        delivery.troubles["letters"] = report.trouble
