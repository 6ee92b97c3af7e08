"""Notifies people of incidents that opened or were resolved, by email, chat services, PostHog and the internal API.

Each channel that is configured is retried until it succeeds; none of them needs Dagster or a database.
"""

import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import Message
from email.mime.text import MIMEText
from email.utils import formatdate, make_msgid
from typing import Protocol

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.domain.alerts.channel_state import Channel
from seedtrust_ops.email_addresses import format_mailbox, format_text, parse_mailbox, to_ascii_address
from seedtrust_ops.errors import ConfigurationError, SeedTrustError
from seedtrust_ops.formatting import single_line
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, MailServerUnavailable
from seedtrust_ops.ports.events import EventDeferred, EventRejected
from seedtrust_ops.resources.alert_services import RESOLVED, AlertServices
from seedtrust_ops.resources.component_status import InternalApi
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.resources.smtp import open_smtp_transport
from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.state_file import NotifiedIncident, WatchdogState

SMTP_TIMEOUT_SECONDS = 10.0
"""Timeout of one response of the mail server. It is short, because the next probe waits for it."""

ReadWorstSeverity = Callable[[], Severity | None]
"""Returns the highest severity of all open CRITICAL and HIGH alerts, the watchdog's and all others."""


class NotificationFailed(Exception):
    """A channel notified nobody; the message says why. The next round tries again."""


@dataclass(frozen=True)
class Changes:
    """What one channel must still notify, and all ongoing incidents.

    An incident that was resolved before the channel reported it is in both `opened` and `resolved`.
    """

    opened: Sequence[NotifiedIncident]
    resolved: Sequence[NotifiedIncident]
    ongoing: Sequence[NotifiedIncident]


class Notifier(Protocol):
    """One channel: a way to notify people."""

    @property
    def name(self) -> str:
        """The channel's name in the state file, in `ops.alert_notifications` and in log lines."""

    def notify(self, changes: Changes) -> None:
        """Notify people of all changes.

        Raises:
            NotificationFailed, SeedTrustError: if nobody was notified.
        """


class EmailChannel:
    """Sends one email per round to each address of ALERT_EMAILS."""

    name = Channel.EMAIL.value

    def __init__(self, settings: MailSettings, addresses: Sequence[str]) -> None:
        self._settings = settings
        self._addresses = addresses

    def notify(self, changes: Changes) -> None:
        """Email everybody. If one email was sent, none is sent again, also if the mail server then hangs up."""
        is_sent = False
        error = ""
        with open_smtp_transport(self._settings, timeout_seconds=SMTP_TIMEOUT_SECONDS) as transport:
            for address in self._addresses:
                try:
                    transport.send(self._build_email(address, changes))
                except (EmailRejected, EmailDeferred, MailServerUnavailable) as failure:
                    error = str(failure)
                else:
                    is_sent = True
        if not is_sent:
            raise NotificationFailed(error)

    def _build_email(self, address: str, changes: Changes) -> Message:
        # In base64, because mail servers need not accept 8-bit characters or long lines.
        message = MIMEText(_text(changes), "plain", "utf-8")
        sender_name, sender_address = parse_mailbox(self._settings.email_from)
        message["From"] = format_mailbox("From", sender_name, sender_address)
        message["To"] = to_ascii_address(address)
        message["Subject"] = format_text("Subject", single_line(_subject(changes)))
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=sender_address.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        return message


class AlertUrlsChannel:
    """Sends one message per round to each chat and paging service of ALERT_URLS."""

    name = Channel.ALERT_URLS.value

    def __init__(self, services: AlertServices) -> None:
        self._services = services

    def notify(self, changes: Changes) -> None:
        """Notify every service. If one accepted the message, none is sent it again."""
        ongoing = [one for one in changes.opened if one.resolved_at is None]
        worst = max((one.incident.severity for one in ongoing), key=lambda one: one.priority, default=None)
        failures = []
        for service in self._services.by_id.values():
            try:
                service.notify(_subject(changes), _text(changes), worst.value if worst is not None else RESOLVED)
            except EventDeferred as failure:
                failures.append(str(failure))
        if len(failures) == len(self._services.by_id):
            raise NotificationFailed(" ".join(failures))


class PostHogChannel:
    """Captures a PostHog event for each incident that opened or was resolved, as for every other alert."""

    name = Channel.POSTHOG.value

    def __init__(self, project: PostHog) -> None:
        self._project = project

    def notify(self, changes: Changes) -> None:
        """Capture one event per change; PostHog ignores duplicates."""
        for one in changes.opened:
            self._capture("alert_opened", one, one.incident.since)
        for one in changes.resolved:
            self._capture("alert_resolved", one, one.resolved_at or one.incident.since)

    def _capture(self, event: str, one: NotifiedIncident, at: datetime) -> None:
        incident = one.incident
        properties = {
            "rule": incident.rule,
            "subject": incident.subject,
            "severity": incident.severity.value,
            "opened_at": incident.since.isoformat(),
            "detail": incident.detail,
        }
        key = f"watchdog:{incident.rule}:{incident.subject}:{incident.since.isoformat()}:{event}"
        try:
            self._project.send(key, {"event": event, "properties": properties}, at)
        except EventRejected as rejection:
            raise NotificationFailed(str(rejection)) from None


class InternalApiChannel:
    """Posts the status of component `jobs` to the internal API, by the highest severity of all open alerts."""

    name = Channel.INTERNAL_API.value

    def __init__(self, api: InternalApi, read_worst_severity: ReadWorstSeverity) -> None:
        self._api = api
        self._read_worst_severity = read_worst_severity

    def notify(self, changes: Changes) -> None:
        """Post the current status of the jobs."""
        severities = [one.incident.severity for one in changes.ongoing]
        worst = max(
            [*severities, *filter(None, [self._read_worst_severity()])], key=lambda one: one.priority, default=None
        )
        detail = " ".join(one.incident.detail for one in changes.ongoing) or "All watchdog incidents are resolved."
        self._api.post(ComponentStatus(Component.JOBS, _status(worst), None, datetime.now(UTC), detail))


def open_channels(read_worst_severity: ReadWorstSeverity) -> tuple[list[Notifier], list[str]]:
    """Return the channels that are configured, and a message for each that is missing or misconfigured."""
    channels: list[Notifier] = []
    problems = []
    try:
        channels.append(EmailChannel(get_settings().mail, get_settings().alert_emails.emails))
    except ConfigurationError as error:
        problems.append(f"The watchdog sends no email: {error}")
    try:
        if urls := get_settings().alert_urls.urls:
            channels.append(AlertUrlsChannel(AlertServices(urls)))
    except ConfigurationError as error:
        problems.append(f"The watchdog notifies no chat or paging service: {error}")
    try:
        posthog = get_settings().posthog
        if posthog.key is not None:
            channels.append(PostHogChannel(PostHog(posthog.host, posthog.key)))
    except ConfigurationError as error:
        problems.append(f"The watchdog sends no PostHog events: {error}")
    try:
        if get_settings().shadow.all_jobs:
            # The legacy systems do the work, so their status is theirs to report.
            problems.append("All jobs are in shadow mode. The watchdog does not post to the internal API.")
        else:
            channels.append(InternalApiChannel(InternalApi(get_settings().internal_api), read_worst_severity))
    except ConfigurationError as error:
        problems.append(f"The watchdog does not post to the internal API: {error}")
    return channels, problems


def notify_channels(
    state: WatchdogState, channels: Sequence[Notifier], now: datetime
) -> tuple[WatchdogState, list[str]]:
    """Notify each channel of its pending changes; return the new state, and a message for each channel that failed.

    A channel that was not configured when an incident opened is notified of it once it is. `now` is aware.
    """
    incidents: Mapping[tuple[str, str], NotifiedIncident] = state.incidents
    failures = []
    for channel in channels:
        opened = [one for one in incidents.values() if channel.name not in one.opening_notified]
        resolved = [
            one
            for one in incidents.values()
            if one.resolved_at is not None and channel.name not in one.resolution_notified
        ]
        if not opened and not resolved:
            continue
        try:
            channel.notify(Changes(opened, resolved, [one for one in incidents.values() if one.resolved_at is None]))
        except (NotificationFailed, SeedTrustError) as error:
            failures.append(f"Channel {channel.name} failed and will be retried in the next round: {error}")
            continue
        except Exception:  # noqa: BLE001  A bug in one channel must not repeat what the others have sent.
            failures.append(
                f"Channel {channel.name} failed unexpectedly and will be retried in the next round.\n"
                f"{traceback.format_exc()}"
            )
            continue
        incidents = {key: _mark_notified(one, channel.name, now) for key, one in incidents.items()}
    return WatchdogState(state.history, incidents), failures


def remove_reported(state: WatchdogState, channels: Sequence[Notifier]) -> WatchdogState:
    """Return the state without the incidents whose resolution every channel has reported."""
    all_channels = {channel.name for channel in channels}
    pending = {
        key: one
        for key, one in state.incidents.items()
        if one.resolved_at is None or not all_channels <= one.resolution_notified.keys()
    }
    return WatchdogState(state.history, pending)


def _mark_notified(one: NotifiedIncident, channel: str, now: datetime) -> NotifiedIncident:
    resolved = one.resolution_notified
    return replace(
        one,
        opening_notified={channel: now, **one.opening_notified},
        resolution_notified={channel: now, **resolved} if one.resolved_at is not None else resolved,
    )


def _status(worst: Severity | None) -> Status:
    if worst is None:
        return Status.UP
    return Status.DOWN if worst is Severity.CRITICAL else Status.DEGRADED


def _subject(changes: Changes) -> str:
    ongoing = [one for one in changes.opened if one.resolved_at is None]
    listed = sorted(ongoing or changes.resolved, key=lambda one: -one.incident.severity.priority)
    first = listed[0].incident
    more = f" and {len(listed) - 1} more" if len(listed) > 1 else ""
    state = first.severity.value if ongoing else "resolved"
    return f"SeedTrust Ops, {state}: {first.rule.replace('_', ' ')} ({first.subject}){more}"


def _text(changes: Changes) -> str:
    paragraphs = [
        f"{one.incident.severity}: {one.incident.rule} ({one.incident.subject})\n{one.incident.detail}"
        for one in changes.opened
    ]
    paragraphs += [
        f"Resolved at {one.resolved_at:%Y-%m-%d %H:%M:%S} UTC: {one.incident.rule} ({one.incident.subject}), "
        f"which began at {one.incident.since:%Y-%m-%d %H:%M:%S} UTC."
        for one in changes.resolved
    ]
    paragraphs.append(
        f"Sent by `seedtrust-ops watchdog` on {socket.gethostname()}. docs/runbook.md explains each rule and what to "
        "do. `seedtrust-ops health` shows the current state."
    )
    return "\n\n".join(paragraphs) + "\n"
