"""Notifies people of alerts by the channels that are configured: email, chat services, PostHog, the internal API.

Who is notified of what is decided in `domain/alert_notifications`. A channel that is missing or down does not affect
the others, and owes what it has not delivered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.alert_notifications.digest import enqueue_digest, record_delivered_digests
from seedtrust_ops.domain.alert_notifications.jobs_status import enqueue_jobs_status, record_accepted_status
from seedtrust_ops.domain.alert_notifications.notifier import enqueue_owed, find_unnotified, record_delivered
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.notifications.notification_kinds import ALERT_KINDS
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.domain.outbox.event_sink import send_due_events
from seedtrust_ops.domain.outbox.store import Destination, abandon_all, count_due_emails
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.events import EventRejected, EventSink
from seedtrust_ops.resources.component_status import InternalApi

RESPONSE_TIMEOUT_SECONDS = 3.0
"""The timeout for one response of the mail server or the internal API: a tick must end well within a minute."""
CLAIM_DURATION = timedelta(minutes=2)
"""With this timeout, one email takes at most a minute. After a crash of the daemon, alert emails wait no longer."""
MAX_EVENT_SECONDS = 4.0
MAX_EMAIL_SECONDS = 8.0


@dataclass
class AlertChannels:
    """The channels with their clients: the mail server, the alert addresses, the event sinks.

    `services` are the ids of the chat and paging services. `missing` says for each channel that is not configured what
    is missing.
    """

    mail: MailResource
    emails: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    sinks: dict[Destination, EventSink] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass
class AlertDelivery:
    """How many emails and events were sent, and an error message for each channel that failed."""

    emails: int = 0
    events: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    has_untold_alerts: bool = False
    """People should have been notified of an alert, and no channel at all has done so."""


class _MisconfiguredSink:
    """Stands in for a destination whose variables are invalid: its events wait until they are corrected."""

    def __init__(self, error: ConfigurationError) -> None:
        self._error = error

    def send(self, _dedupe_key: str, _body: Mapping[str, Any], _at: datetime) -> None:
        raise self._error


class _StatusSink:
    """Posts queued statuses to the internal API."""

    def __init__(self, api: InternalApi) -> None:
        self._api = api

    def send(self, _dedupe_key: str, body: Mapping[str, Any], _at: datetime) -> None:
        try:
            status = ComponentStatus(
                component=Component(body["component"]),
                status=Status(body["status"]),
                latency_ms=body["latency_ms"],
                checked_at=datetime.fromisoformat(body["checked_at"]),
                detail=body["detail"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EventRejected(f"The row queued for the internal API is not a valid status: {error!r}.") from None
        self._api.post(status)


def configured_channels(
    mail: MailResource, internal_api: InternalApiResource, posthog: PostHogResource
) -> AlertChannels:
    """Return the channels that the environment configures."""
    channels = AlertChannels(mail)
    try:
        channels.emails = get_settings().alert_emails.emails
    except ConfigurationError as error:
        channels.missing["email"] = f"{error} Alerts are not emailed."
    _add_internal_api(channels, internal_api)
    _add_services(channels)
    try:
        project = posthog.project()
    except ConfigurationError as error:
        channels.sinks[Destination.POSTHOG] = _MisconfiguredSink(error)
        return channels
    if project is None:
        channels.missing[Destination.POSTHOG] = "POSTHOG_API_KEY is not set. Alerts are not sent to PostHog."
    else:
        channels.sinks[Destination.POSTHOG] = project
    return channels


def _add_internal_api(channels: AlertChannels, internal_api: InternalApiResource) -> None:
    try:
        if get_settings().shadow.all_jobs:
            # The legacy systems do the work, so their status is theirs to report.
            channels.missing[Destination.INTERNAL_API] = (
                "All jobs are in shadow mode. No status is posted to the internal API."
            )
            return
        channels.sinks[Destination.INTERNAL_API] = _StatusSink(
            internal_api.api(timeout_seconds=RESPONSE_TIMEOUT_SECONDS)
        )
    except ConfigurationError as error:
        channels.missing[Destination.INTERNAL_API] = f"{error} No status is posted to the internal API."


def _add_services(channels: AlertChannels) -> None:
    try:
        urls = get_settings().alert_urls.urls
    except ConfigurationError as error:
        channels.sinks[Destination.ALERT_URLS] = _MisconfiguredSink(error)
        channels.missing[Destination.ALERT_URLS] = f"{error} Alerts go to no chat or paging service."
        return
    if not urls:
        channels.missing[Destination.ALERT_URLS] = "ALERT_URLS is not set. Alerts go to no chat or paging service."
        return
    # The library takes long to import, and most processes need it never.
    from seedtrust_ops.resources.alert_services import AlertServices

    services = AlertServices(urls)
    channels.sinks[Destination.ALERT_URLS] = services
    channels.services = tuple(services.by_id)


def notify_people(
    sessions: Sessions, channels: AlertChannels, *, now: datetime, digest_of: date | None
) -> AlertDelivery:
    """Queue what the channels owe people, send what is due for at most a few seconds each, and record what was sent.

    Args:
        sessions: on the application's database.
        channels: the channels that are configured.
        now: aware.
        digest_of: the day whose digest is due; None if none is.
    """
    has_posthog = Destination.POSTHOG in channels.sinks
    unnotified = run_in_transaction(
        sessions,
        partial(enqueue_owed, emails=channels.emails, posthog=has_posthog, services=channels.services, now=now),
    )
    if Destination.INTERNAL_API in channels.sinks:
        run_in_transaction(sessions, enqueue_jobs_status)
    if digest_of is not None:
        run_in_transaction(sessions, partial(enqueue_digest, emails=channels.emails, day=digest_of))
    delivery = AlertDelivery()
    _send_events(sessions, channels, delivery)
    _send_alert_emails(sessions, channels.mail, delivery)

    def record(session: Session) -> bool:
        record_delivered(session, emails=channels.emails, services=channels.services, now=now)
        record_delivered_digests(session, emails=channels.emails, now=now)
        return bool(find_unnotified(session, unnotified))

    delivery.has_untold_alerts = run_in_transaction(sessions, record)
    return delivery


def _send_events(sessions: Sessions, channels: AlertChannels, delivery: AlertDelivery) -> None:
    for destination in Destination:
        sink = channels.sinks.get(destination)
        if sink is None:
            run_in_transaction(
                sessions, partial(abandon_all, destination=destination, reason=channels.missing[destination])
            )
            continue
        # Only statuses of component `jobs` are queued for the internal API.
        on_accepted = record_accepted_status if destination is Destination.INTERNAL_API else None
        report = send_due_events(sessions, destination, sink, max_seconds=MAX_EVENT_SECONDS, on_accepted=on_accepted)
        delivery.events += report.sent
        if report.error is not None:
            delivery.errors[destination] = report.error


def _send_alert_emails(sessions: Sessions, mail: MailResource, delivery: AlertDelivery) -> None:
    kinds = [kind.name for kind in ALERT_KINDS]
    if not run_in_transaction(sessions, partial(count_due_emails, kinds=kinds)):
        return
    try:
        with mail.open(timeout_seconds=RESPONSE_TIMEOUT_SECONDS) as transport:
            report = send_due_emails(
                sessions,
                transport,
                EmailRenderer(ZoneInfo(get_settings().location.timezone)),
                max_seconds=MAX_EMAIL_SECONDS,
                kinds=kinds,
                claim_duration=CLAIM_DURATION,
            )
    except SeedTrustError as error:
        delivery.errors["email"] = str(error)
        return
    delivery.emails = report.sent
    if report.error is not None:
        delivery.errors["email"] = report.error
