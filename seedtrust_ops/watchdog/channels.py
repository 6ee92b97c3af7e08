"""The watchdog's ways to reach people: letters by SMTP, PostHog and the internal API, as far as they are configured."""

import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.mail import MailSettings
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.ports.component_status import Component, ComponentStatus, Status
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected
from seedtrust_ops.ports.events import EventRefused
from seedtrust_ops.resources.internal_api_client import InternalApi
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.resources.smtp import open_post_office
from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.notifier import Channel, News, NotTold
from seedtrust_ops.watchdog.state_file import Told

ANSWER_SECONDS = 10.0
"""How long one answer of the mail server is waited for: the next look must not wait for long."""

WorstOpen = Callable[[], Severity | None]
"""Returns the worst severity of all urgent alerts that are open, whoever opened them."""


class Letters:
    """One letter a look to each of ALERT_EMAILS."""

    name = "letters"

    def __init__(self, settings: MailSettings, addresses: Sequence[str]) -> None:
        self._settings = settings
        self._addresses = addresses

    def tell(self, news: News) -> None:
        """Write to all; reaching one of them is enough not to write to all again."""
        reached = False
        trouble = ""
        with open_post_office(self._settings, answer_seconds=ANSWER_SECONDS) as office:
            for address in self._addresses:
                try:
                    office.send(self._letter(address, news))
                except (EmailRejected, EmailDeferred) as refusal:
                    trouble = str(refusal)
                else:
                    reached = True
        if not reached:
            raise NotTold(trouble)

    def _letter(self, address: str, news: News) -> EmailMessage:
        letter = EmailMessage()
        letter["From"] = self._settings.email_from
        letter["To"] = address
        letter["Subject"] = _subject(news)
        letter["Date"] = formatdate()
        letter["Message-ID"] = make_msgid(domain=parseaddr(self._settings.email_from)[1].rpartition("@")[2])
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(_text(news))
        return letter


class Events:
    """An event of PostHog's for each trouble that began or is over, as for every other alert."""

    name = "PostHog"

    def __init__(self, project: PostHog) -> None:
        self._project = project

    def tell(self, news: News) -> None:
        """Tell them one by one; PostHog drops those that it has."""
        for one in news.begun:
            self._take("alert_opened", one, one.trouble.since)
        for one in news.over:
            self._take("alert_resolved", one, one.over_at or one.trouble.since)

    def _take(self, event: str, one: Told, at: datetime) -> None:
        trouble = one.trouble
        properties = {
            "rule": trouble.rule,
            "subject": trouble.subject,
            "severity": trouble.severity.value,
            "opened_at": trouble.since.isoformat(),
            "detail": trouble.detail,
        }
        key = f"watchdog:{trouble.rule}:{trouble.subject}:{trouble.since.isoformat()}:{event}"
        try:
            self._project.take(key, {"event": event, "properties": properties}, at)
        except EventRefused as refusal:
            raise NotTold(str(refusal)) from None


class StatusPosts:
    """The status of component `jobs` at the internal API, as bad as the worst alert that is open."""

    name = "internal API"

    def __init__(self, api: InternalApi, worst_open: WorstOpen) -> None:
        self._api = api
        self._worst_open = worst_open

    def tell(self, news: News) -> None:
        """Post how the jobs are now."""
        severities = [one.trouble.severity for one in news.lasting]
        worst = max([*severities, *filter(None, [self._worst_open()])], key=lambda one: one.priority, default=None)
        detail = " ".join(one.trouble.detail for one in news.lasting) or "What the watchdog told of is over."
        self._api.post(ComponentStatus(Component.JOBS, _status(worst), None, datetime.now(UTC), detail))


def open_channels(worst_open: WorstOpen) -> tuple[list[Channel], list[str]]:
    """Return the ways that are configured, and a sentence for each that is not or can't be used."""
    channels: list[Channel] = []
    lacking = []
    try:
        channels.append(Letters(get_settings().mail, get_settings().alert_letters.emails))
    except ConfigurationError as error:
        lacking.append(f"No letters are written: {error}")
    try:
        posthog = get_settings().posthog
        if posthog.key is not None:
            channels.append(Events(PostHog(posthog.host, posthog.key)))
    except ConfigurationError as error:
        lacking.append(f"PostHog is not told: {error}")
    try:
        channels.append(StatusPosts(InternalApi(get_settings().internal_api), worst_open))
    except ConfigurationError as error:
        lacking.append(f"The internal API is not told: {error}")
    return channels, lacking


def _status(worst: Severity | None) -> Status:
    if worst is None:
        return Status.UP
    return Status.DOWN if worst is Severity.CRITICAL else Status.DEGRADED


def _subject(news: News) -> str:
    lasting = [one for one in news.begun if one.over_at is None]
    named = sorted(lasting or news.over, key=lambda one: -one.trouble.severity.priority)
    first = named[0].trouble
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    said = first.severity.value if lasting else "over"
    return f"SeedTrust Ops, {said}: {first.rule.replace('_', ' ')} ({first.subject}){more}"


def _text(news: News) -> str:
    paragraphs = [
        f"{one.trouble.severity}: {one.trouble.rule} ({one.trouble.subject})\n{one.trouble.detail}"
        for one in news.begun
    ]
    paragraphs += [
        f"Over since {one.over_at:%Y-%m-%d %H:%M:%S} UTC: {one.trouble.rule} ({one.trouble.subject}), "
        f"which began at {one.trouble.since:%Y-%m-%d %H:%M:%S} UTC."
        for one in news.over
    ]
    paragraphs.append(
        f"Written by `seedtrust-ops watchdog` on {socket.gethostname()}. docs/runbook.md says what each rule means and "
        "what to do; `seedtrust-ops health` says how things are now."
    )
    return "\n\n".join(paragraphs) + "\n"
