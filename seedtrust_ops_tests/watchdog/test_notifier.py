"""Each channel reports an incident's opening once and its resolution once, across failures, restarts and relapses."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.domain.alerts.channel_state import DAEMON_SILENT, DATABASE_DOWN, TICKS_STOPPED
from seedtrust_ops.email_addresses import parse_mailbox
from seedtrust_ops.resources.alert_services import AlertServices
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog import state_file
from seedtrust_ops.watchdog.evaluator import Incident, ProbeHistory, ProbeVerdict
from seedtrust_ops.watchdog.notifier import (
    AlertUrlsChannel,
    Changes,
    EmailChannel,
    NotificationFailed,
    notify_channels,
    remove_reported,
)
from seedtrust_ops.watchdog.state_file import NotifiedIncident, WatchdogState, update_state
from seedtrust_ops_tests.support.chat_services import serve_chat_services

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
HISTORY = ProbeHistory(NOON)


def incident(rule: str = DAEMON_SILENT, subject: str = "daemon", *, since: datetime = NOON) -> Incident:
    return Incident(rule, subject, Severity.CRITICAL, "It is silent.", since)


class FakeChannel:
    """A channel that records its notifications, or fails if it is down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_down = False
        self.notified: list[str] = []

    def notify(self, changes: Changes) -> None:
        if self.is_down:
            raise NotificationFailed("No connection.")
        self.notified += [f"opened {opened.incident.subject}" for opened in changes.opened]
        self.notified += [f"resolved {resolved.incident.subject}" for resolved in changes.resolved]


def notify(state: WatchdogState, *channels: FakeChannel) -> tuple[WatchdogState, list[str]]:
    """One round's notifications; return the state that the next round starts with, and the failures."""
    notified, failures = notify_channels(state, channels, NOON)
    return remove_reported(notified, channels), failures


def probed(state: WatchdogState, *incidents: Incident, unknown: Sequence[str] = ()) -> WatchdogState:
    return update_state(state, ProbeVerdict(incidents, frozenset(unknown), HISTORY), NOON)


def test_channels_report_opening_once_and_resolution_once() -> None:
    email, posts = FakeChannel("email"), FakeChannel("posts")
    state = WatchdogState(HISTORY)
    for incidents in ([incident()], [incident()], [], []):
        state, failures = notify(probed(state, *incidents), email, posts)
        assert failures == []
    assert email.notified == posts.notified == ["opened daemon", "resolved daemon"]
    assert state.incidents == {}


def test_failed_channel_is_retried_and_others_are_not_repeated() -> None:
    email, posts = FakeChannel("email"), FakeChannel("posts")
    email.is_down = True
    state, failures = notify(probed(WatchdogState(HISTORY), incident()), email, posts)
    assert failures == ["Channel email failed and will be retried in the next round: No connection."]
    email.is_down = False
    state, _ = notify(probed(state, incident()), email, posts)
    assert email.notified == posts.notified == ["opened daemon"]


def test_chat_services_are_notified_unless_all_of_them_are_down() -> None:
    with serve_chat_services() as chat:
        services = AlertServices([SecretStr(chat.url(path)) for path in ("/team", "/pager")])
        channel = AlertUrlsChannel(services)
        chat.down = {"/team", "/pager"}
        state, failures = notify(probed(WatchdogState(HISTORY), incident()), channel)
        assert "JSON (ALERT_URLS) did not accept the alert" in failures[0]
        chat.down = {"/team"}
        for incidents in ([incident()], [incident()], []):
            state, failures = notify(probed(state, *incidents), channel)
            assert failures == []
    assert [message["type"] for message in chat.messages["/pager"]] == ["failure", "success"]
    assert "daemon" in chat.messages["/pager"][0]["title"]


def test_channel_configured_later_is_notified_of_open_incidents() -> None:
    email, posts = FakeChannel("email"), FakeChannel("posts")
    state, _ = notify(probed(WatchdogState(HISTORY), incident()), posts)
    notify(probed(state, incident()), email, posts)
    assert (email.notified, posts.notified) == (["opened daemon"], ["opened daemon"])


def test_incident_resolved_before_any_notification_is_still_reported() -> None:
    email = FakeChannel("email")
    email.is_down = True
    state, _ = notify(probed(WatchdogState(HISTORY), incident()), email)
    email.is_down = False
    state, _ = notify(probed(state), email)
    assert email.notified == ["opened daemon", "resolved daemon"]
    assert state.incidents == {}


def test_relapse_before_the_resolution_was_reported_is_not_reported() -> None:
    email = FakeChannel("email")
    state, _ = notify(probed(WatchdogState(HISTORY), incident()), email)
    state = probed(state)
    state, _ = notify(probed(state, incident(since=NOON + timedelta(minutes=1))), email)
    assert email.notified == ["opened daemon"]


def test_incident_of_an_unknown_rule_stays_open() -> None:
    silent, stopped, down = incident(), incident(TICKS_STOPPED, "some_sensor"), incident(DATABASE_DOWN, "dagster")
    state = probed(WatchdogState(HISTORY), silent, stopped)
    state = probed(state, down, unknown=[DAEMON_SILENT, TICKS_STOPPED])
    assert all(notified.resolved_at is None for notified in state.incidents.values())
    assert [notified.resolved_at for notified in probed(state, silent).incidents.values()] == [None, NOON, NOON]


times = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  `timezones` sets the zone
notified_incidents = st.builds(
    NotifiedIncident,
    st.builds(
        Incident,
        st.sampled_from([DAEMON_SILENT, TICKS_STOPPED]),
        st.text(),
        st.sampled_from(Severity),
        st.text(),
        times,
    ),
    st.none() | times,
    st.dictionaries(st.text(), times),
    st.dictionaries(st.text(), times),
)
states = st.builds(
    WatchdogState,
    st.builds(
        ProbeHistory,
        times,
        st.dictionaries(st.sampled_from(["application", "dagster"]), times),
        st.booleans(),
        st.none() | times,
    ),
    st.lists(notified_incidents).map(lambda found: {notified.incident.key: notified for notified in found}),
)


@given(state=states)
def test_state_file_round_trips(state: WatchdogState, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "watchdog"
    state_file.write_state(folder, state)
    assert state_file.read_state(folder) == state


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"history": 3, "incidents": []}', '{"history": {"watching_since": "x"}}']
)
def test_unreadable_state_file_counts_as_missing(content: str, tmp_path: Path) -> None:
    assert state_file.read_state(tmp_path) is None
    (tmp_path / state_file.STATE_FILE).write_text(content)
    assert state_file.read_state(tmp_path) is None


@pytest.mark.usefixtures("child_processes")
def test_notifications_are_not_repeated_after_a_restart(tmp_path: Path) -> None:
    email = FakeChannel("email")
    state, _ = notify(probed(WatchdogState(HISTORY), incident()), email)
    state_file.write_state(tmp_path, state)
    restored = state_file.read_state(tmp_path)
    assert restored is not None
    notify(probed(restored, replace(incident(), detail="It is still silent.")), email)
    assert email.notified == ["opened daemon"]


def test_email_with_foreign_letters_in_names_and_domains_arrives(mailbox: MailboxProcess) -> None:
    sender = {"EMAIL_FROM": "Treuhand-Büro der Leihmutterschaft 李 <escrow@büro.example>"}
    settings = MailSettings(**mailbox.environment | sender)
    opened = [NotifiedIncident(incident(subject="Übersicht " * 20))]
    EmailChannel(settings, ["on-call@münchen.example"]).notify(Changes(opened, [], opened))
    (email,) = mailbox.control.emails()
    assert (email.sender, email.recipient) == ("escrow@xn--bro-hoa.example", "on-call@xn--mnchen-3ya.example")
    assert parse_mailbox(message_from_bytes(email.content)["From"])[0] == "Treuhand-Büro der Leihmutterschaft 李"
    assert "Übersicht Übersicht" in email.subject
    assert "It is silent." in email.text
    assert all(len(line) <= 78 and line.isascii() for line in email.content.split(b"\r\n"))
