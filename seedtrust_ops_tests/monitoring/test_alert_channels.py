"""Alert notifications: each is sent once on every channel, also after outages and crashes; the servers are real."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.notifier import OWED_AFTER_RESOLUTION
from seedtrust_ops.domain.alerts.store import Finding, acknowledge, open_alert
from seedtrust_ops.domain.health.evaluator import evaluate
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.domain.outbox.email_sink import alert_subject
from seedtrust_ops.monitoring.alert_channels import AlertDelivery, configured_channels, notify_people
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.sandbox.external_services.control_client import InternalApiServer, PostHogServer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.severity import Severity
from seedtrust_ops.status.workload import read_workload
from seedtrust_ops.tables import Alert, AlertNotification, Notification, OutgoingEvent
from seedtrust_ops_tests.monitoring.conftest import ON_CALL
from seedtrust_ops_tests.support.chat_services import ChatServices, serve_chat_services
from seedtrust_ops_tests.support.environment import SetVariables

pytestmark = pytest.mark.usefixtures("health_environment")

CRITICAL, HIGH, MEDIUM, LOW = (Severity(name) for name in ("CRITICAL", "HIGH", "MEDIUM", "LOW"))
A_DAY = date(2026, 3, 3)
NOON = time(12, tzinfo=UTC)


class Tick:
    """A health tick with one rule that returns the test's findings."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def __call__(
        self, *findings: Finding, digest_of: date | None = None, later: timedelta = timedelta(0)
    ) -> AlertDelivery:
        now = datetime.now(UTC) + later if digest_of is None else datetime.combine(digest_of, NOON)
        rule = HealthRule("batch_stuck", lambda _session: findings)
        evaluate(self.sessions, [rule], now=now, last_evaluated={}, quiet_seconds=0, max_seconds=60)
        channels = configured_channels(MailResource(), InternalApiResource(), PostHogResource())
        return notify_people(self.sessions, channels, now=now, digest_of=digest_of)

    def make_all_due(self) -> None:
        """End every retry delay and the hold of every crashed dispatcher."""
        with self.sessions.begin() as session:
            session.execute(
                update(Notification).where(Notification.status == "queued").values(next_attempt_at=func.now())
            )
            session.execute(update(OutgoingEvent).values(next_attempt_at=func.now()))

    def notifications(self) -> set[str]:
        """What each channel is recorded to have said of the last alert: `email opened`, `posthog resolved` ..."""
        with self.sessions() as session:
            rows = session.scalars(select(AlertNotification).where(AlertNotification.alert_id == self.last_alert().id))
            return {f"{row.channel} {row.notification}" for row in rows}

    def last_alert(self) -> Alert:
        with self.sessions() as session:
            return session.scalars(select(Alert).order_by(Alert.id.desc()).limit(1)).one()

    def column_values(self, column: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(column).order_by(column)))


@pytest.fixture
def tick(sessions: sessionmaker[Session]) -> Tick:
    return Tick(sessions)


def stuck(severity: Severity = CRITICAL, subject: str = "batch 7") -> Finding:
    return Finding("batch_stuck", subject, severity, "It is stuck.")


def subjects(mailbox: MailboxProcess) -> dict[str, int]:
    return dict(Counter(email.subject for email in mailbox.control.emails()))


@pytest.mark.parametrize(("severity", "status"), [(CRITICAL, "down"), (HIGH, "degraded"), (MEDIUM, "up"), (LOW, "up")])
def test_severity_decides_which_channels_are_notified_at_once(
    tick: Tick,
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
    severity: Severity,
    status: str,
) -> None:
    tick(stuck(severity))
    is_urgent = severity in (CRITICAL, HIGH)
    assert subjects(mailbox) == ({f"{severity}: batch stuck, batch 7": len(ON_CALL)} if is_urgent else {})
    assert [event["event"] for event in posthog.events()] == (["alert_opened"] if is_urgent else [])
    assert all("detail" not in event["properties"] for event in posthog.events())
    assert [post["status"] for post in internal_api.posted_statuses()] == [status]
    assert tick.notifications() == ({"email opened", "posthog opened", "internal_api opened"} if is_urgent else set())


def test_alert_is_notified_again_if_it_gets_worse_but_not_if_better(
    tick: Tick, mailbox: MailboxProcess, internal_api: InternalApiServer
) -> None:
    for severity in (LOW, HIGH, MEDIUM, CRITICAL, HIGH):
        tick(stuck(severity))
    tick()
    assert subjects(mailbox) == {
        "HIGH: batch stuck, batch 7": len(ON_CALL),
        "CRITICAL: batch stuck, batch 7": len(ON_CALL),
        "Resolved: batch stuck, batch 7": len(ON_CALL),
    }
    assert [post["status"] for post in internal_api.posted_statuses()] == ["up", "degraded", "down", "up"]


def test_acknowledged_alert_is_not_notified_again_or_when_resolved(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, internal_api: InternalApiServer
) -> None:
    tick(stuck(HIGH))
    before = subjects(mailbox)
    with sessions.begin() as session:
        acknowledge(session, tick.last_alert().id, "Maria")
    tick(stuck(HIGH))
    tick()
    assert subjects(mailbox) == before
    assert tick.last_alert().resolved_at is not None
    # The status of component `jobs` is not a notification: it must stay correct.
    assert [post["status"] for post in internal_api.posted_statuses()] == ["degraded", "up"]


def test_acknowledged_alert_that_gets_worse_is_notified_again(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    tick(stuck(HIGH))
    with sessions.begin() as session:
        acknowledge(session, tick.last_alert().id, "Maria")
    tick(stuck(CRITICAL))
    tick()
    assert list(subjects(mailbox)) == [
        "HIGH: batch stuck, batch 7",
        "CRITICAL: batch stuck, batch 7",
        "Resolved: batch stuck, batch 7",
    ]


def test_acknowledged_alert_that_occurs_again_is_notified_again(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    with sessions.begin() as session:
        open_alert(session, "bank_silent", "Huntington", "CRITICAL", "Batch 7 got no response.")
    tick()
    with sessions.begin() as session:
        acknowledge(session, tick.last_alert().id, "Maria")
        open_alert(session, "bank_silent", "Huntington", "CRITICAL", "Batch 8 got no response.")
    tick()
    assert list(subjects(mailbox)) == ["CRITICAL: bank silent, Huntington"]
    tick(later=LATER)
    assert list(subjects(mailbox))[1:] == ["CRITICAL: bank silent, Huntington, again"]


def test_alert_that_outlasts_its_acknowledgement_is_notified_again_once(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    tick(stuck(HIGH))
    with sessions.begin() as session:
        acknowledge(session, tick.last_alert().id, "Maria", timedelta(microseconds=1))
    for _ in range(3):
        tick(stuck(HIGH))
    tick()
    assert subjects(mailbox) == {
        "HIGH: batch stuck, batch 7": len(ON_CALL),
        "HIGH: batch stuck, batch 7, again": len(ON_CALL),
        "Resolved: batch stuck, batch 7": len(ON_CALL),
    }


def test_alert_resolved_before_its_notification_sends_both(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    with sessions.begin() as session:
        session.add(Alert(rule="bank_silent", subject="Huntington", severity="CRITICAL", resolved_at=func.now()))
    for _ in range(2):
        tick()
    assert subjects(mailbox) == {
        "CRITICAL: bank silent, Huntington": len(ON_CALL),
        "Resolved: bank silent, Huntington": len(ON_CALL),
    }


def test_resolution_never_overtakes_the_email_that_an_alert_opened(tick: Tick, mailbox: MailboxProcess) -> None:
    mailbox.control.inject_fault("defer", times=None)
    tick(stuck())
    mailbox.control.clear_faults()
    # The email that it opened waits for its retry.
    tick()
    assert subjects(mailbox) == {}
    tick.make_all_due()
    for _ in range(2):
        tick()
    emails = [email.subject for email in mailbox.control.emails()]
    assert emails == ["CRITICAL: batch stuck, batch 7"] * len(ON_CALL) + ["Resolved: batch stuck, batch 7"] * len(
        ON_CALL
    )


def test_resolution_does_not_wait_for_one_of_several_addresses(tick: Tick, mailbox: MailboxProcess) -> None:
    mailbox.control.inject_fault("defer", recipient=ON_CALL[0], times=None)
    tick(stuck())
    tick()
    assert [email.subject for email in mailbox.control.emails(ON_CALL[1])] == [
        "CRITICAL: batch stuck, batch 7",
        "Resolved: batch stuck, batch 7",
    ]


def test_alert_resolved_while_its_emails_were_rejected_is_still_owed(tick: Tick, mailbox: MailboxProcess) -> None:
    mailbox.control.inject_fault("reject", times=None)
    tick(stuck())
    tick()
    assert set(tick.column_values(Notification.status)) == {"failed"}
    mailbox.control.clear_faults()
    tick()
    assert subjects(mailbox) == {}
    for _ in range(2):
        tick(later=LATER)
    assert subjects(mailbox) == {
        "CRITICAL: batch stuck, batch 7": len(ON_CALL),
        "Resolved: batch stuck, batch 7": len(ON_CALL),
    }


def test_alert_about_alert_emails_is_not_emailed(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, posthog: PostHogServer
) -> None:
    with sessions.begin() as session:
        open_alert(session, "notifications_failing", alert_subject("alert-opened"), HIGH, "Email 1 failed.")
    tick()
    assert subjects(mailbox) == {}
    assert [event["event"] for event in posthog.events()] == ["alert_opened"]
    assert tick.notifications() == {"email skipped", "posthog opened", "internal_api opened"}


@pytest.fixture
def chat(set_variables: SetVariables) -> Iterator[ChatServices]:
    with serve_chat_services() as services:
        set_variables(ALERT_URLS=f"{services.url('/team')}, {services.url('/pager')}")
        yield services


def test_chat_services_are_notified_of_each_change_once(tick: Tick, chat: ChatServices) -> None:
    for severity in (MEDIUM, HIGH, HIGH, CRITICAL):
        tick(stuck(severity))
    tick()
    expected = [
        ("HIGH: batch stuck, batch 7", "warning"),
        ("CRITICAL: batch stuck, batch 7", "failure"),
        ("Resolved: batch stuck, batch 7", "success"),
    ]
    for path in ("/team", "/pager"):
        assert [(message["title"], message["type"]) for message in chat.messages[path]] == expected
        assert "It is stuck." in chat.messages[path][0]["message"]
    assert {"alert_urls opened", "alert_urls rose-to-critical", "alert_urls resolved"} <= tick.notifications()


def test_chat_service_that_is_down_delays_no_other_and_is_owed(tick: Tick, chat: ChatServices) -> None:
    chat.down = {"/team"}
    tick(stuck(HIGH))
    assert (chat.titles("/team"), chat.titles("/pager")) == ([], ["HIGH: batch stuck, batch 7"])
    chat.down = set()
    tick.make_all_due()
    tick(stuck(HIGH))
    assert (chat.titles("/team"), chat.titles("/pager")) == (["HIGH: batch stuck, batch 7"],) * 2


def test_health_counts_a_chat_service_as_having_notified_somebody(
    tick: Tick, chat: ChatServices, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    set_variables(SMTP_PORT="1")
    chat.down = {"/team", "/pager"}
    tick(stuck(CRITICAL))
    with sessions() as session:
        assert read_workload(session, halted_by_environment=False).unnotified.alerts > 0
    chat.down = {"/team"}
    tick.make_all_due()
    tick(stuck(CRITICAL))
    # The alert that the mail server is down was opened by the first tick, and sent to the services by the second.
    with sessions() as session:
        assert read_workload(session, halted_by_environment=False).unnotified.alerts == 0


def test_urls_of_chat_services_are_stored_and_logged_nowhere(
    tick: Tick, chat: ChatServices, sessions: sessionmaker[Session], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    chat.down = {"/team"}
    report = tick(stuck(CRITICAL))
    with sessions() as session:
        rows = session.execute(text("select e::text, a::text from ops.outgoing_events e, ops.alerts a")).all()
    assert rows
    assert all("/team" not in shown for shown in (str(rows), str(report), caplog.text))


def test_digest_is_sent_once_a_day_with_new_open_and_resolved_alerts(tick: Tick, mailbox: MailboxProcess) -> None:
    tick(stuck(MEDIUM, "first"), stuck(LOW, "second"), stuck(HIGH, "urgent"))
    mailbox.control.empty()
    for _ in range(2):
        tick(stuck(MEDIUM, "first"), stuck(LOW, "second"), stuck(HIGH, "urgent"), digest_of=A_DAY)
    assert subjects(mailbox) == {"Alerts for Tuesday, March 3, 2026: 2 new, 0 still open, 0 resolved": len(ON_CALL)}
    mailbox.control.empty()
    # One alert opens and is resolved between two digests.
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"), stuck(LOW, "short"))
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"))
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"), digest_of=date(2026, 3, 4))
    assert subjects(mailbox) == {"Alerts for Wednesday, March 4, 2026: 0 new, 1 still open, 2 resolved": len(ON_CALL)}
    mailbox.control.empty()
    tick(stuck(HIGH, "urgent"), digest_of=date(2026, 3, 5))
    assert subjects(mailbox) == {"Alerts for Thursday, March 5, 2026: 0 new, 0 still open, 1 resolved": len(ON_CALL)}
    mailbox.control.empty()
    tick(stuck(HIGH, "urgent"), digest_of=date(2026, 3, 6))
    assert subjects(mailbox) == {}


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("ALERT_EMAILS", "ALERT_EMAILS is not set."),
        ("POSTHOG_API_KEY", "POSTHOG_API_KEY is not set."),
        ("INTERNAL_API_URL", "INTERNAL_API_URL is not set."),
        ("SMTP_HOST", "SMTP_HOST is not set."),
    ],
)
def test_missing_channel_does_not_affect_the_others(
    tick: Tick,
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
    set_variables: SetVariables,
    variable: str,
    message: str,
) -> None:
    value = os.environ[variable]
    set_variables(**{variable: None})
    delivery = tick(stuck())
    channels = configured_channels(MailResource(), InternalApiResource(), PostHogResource())
    assert message in " ".join([*delivery.errors.values(), *channels.missing.values()])
    sent = {
        "ALERT_EMAILS": len(mailbox.control.emails()),
        "POSTHOG_API_KEY": len(posthog.events()),
        "INTERNAL_API_URL": len(internal_api.posted_statuses()),
    }
    missing = "ALERT_EMAILS" if variable == "SMTP_HOST" else variable
    everything = {"ALERT_EMAILS": len(ON_CALL), "POSTHOG_API_KEY": 1, "INTERNAL_API_URL": 1}
    assert sent == everything | {missing: 0}
    assert len(tick.notifications()) == 2

    # The alert is still open when the variable is corrected, so the channel still owes it.
    set_variables(**{variable: value})
    tick.make_all_due()
    tick(stuck())
    assert len(mailbox.control.emails()) == len(ON_CALL)
    assert [len(posthog.events()), len(internal_api.posted_statuses())] == [1, 1]
    assert tick.notifications() == {"email opened", "posthog opened", "internal_api opened"}


def test_channels_send_everything_once_after_an_outage(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, internal_api: InternalApiServer
) -> None:
    mailbox.control.inject_fault("defer", times=None)
    for server in (posthog, internal_api):
        server.respond_with(503)
    delivery = tick(stuck())
    assert {str(name) for name in delivery.errors} == {"posthog", "internal_api"}
    tick.make_all_due()
    tick()
    assert mailbox.control.emails() == []

    mailbox.control.clear_faults()
    for server in (posthog, internal_api):
        server.clear()
    tick.make_all_due()
    for _ in range(2):
        tick()
    assert subjects(mailbox) == {
        "CRITICAL: batch stuck, batch 7": len(ON_CALL),
        "Resolved: batch stuck, batch 7": len(ON_CALL),
    }
    assert Counter(event["event"] for event in posthog.events()) == {"alert_opened": 1, "alert_resolved": 1}
    # Only the current status is posted, not the outdated one.
    assert [post["status"] for post in internal_api.posted_statuses()] == ["up"]


LATER = timedelta(minutes=61)


def test_failure_during_an_open_alert_is_notified_again_once_an_hour(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, posthog: PostHogServer
) -> None:
    def fail(*email_ids: int) -> None:
        with sessions.begin() as session:
            for email_id in email_ids:
                open_alert(session, "notifications_failing", "report emails", HIGH, f"Email {email_id} failed.")

    fail(1)
    tick()
    fail(*range(2, 500))
    fail(499)
    tick()
    first = "HIGH: notifications failing, report emails"
    assert subjects(mailbox) == {first: len(ON_CALL)}
    for _ in range(2):
        tick(later=LATER)
    # One failure more, but within the hour.
    fail(500)
    tick()
    assert subjects(mailbox) == {first: len(ON_CALL), f"{first}, again": len(ON_CALL)}
    email = mailbox.control.emails()[-1]
    assert "Email 499 failed." in email.text
    assert "Occurred: 499 times so far" in email.text
    assert [event["event"] for event in posthog.events()] == ["alert_opened", "alert_recurred"]
    with sessions() as session:
        record = session.scalars(select(AlertNotification).where(AlertNotification.notification == "again-1")).first()
    assert record is not None
    assert (record.occurrences, tick.last_alert().occurrences) == (499, 500)


def test_rejected_alert_email_is_owed_until_the_relay_accepts_it(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, sessions: sessionmaker[Session]
) -> None:
    mailbox.control.inject_fault("reject", times=None)
    tick(stuck())
    tick(stuck())
    mailbox.control.clear_faults()
    assert tick.column_values(Notification.status) == ["failed"] * len(ON_CALL)
    # The alert about the failed alert emails counts them, and goes to the other channels alone.
    assert (tick.last_alert().subject, tick.last_alert().occurrences) == ("alert-opened emails", len(ON_CALL))
    assert {event["properties"]["subject"] for event in posthog.events()} == {"batch 7", "alert-opened emails"}
    # It is tried again an hour later, not at every tick.
    tick(stuck())
    assert subjects(mailbox) == {}
    tick(stuck(), later=LATER)
    assert subjects(mailbox) == {"CRITICAL: batch stuck, batch 7": len(ON_CALL)}
    with sessions() as session:
        still_open = session.scalars(select(Alert.subject).where(Alert.resolved_at.is_(None)))
        assert list(still_open) == ["batch 7"]


def test_alert_about_alert_emails_is_over_once_their_recipients_are_reached(
    tick: Tick, mailbox: MailboxProcess, sessions: sessionmaker[Session]
) -> None:
    mailbox.control.inject_fault("reject", times=len(ON_CALL))
    tick(stuck(subject="batch 7"))
    mailbox.control.inject_fault("reject", recipient=ON_CALL[0], times=2)
    tick(stuck(subject="batch 8"))
    with sessions() as session:
        open_subjects = select(Alert.subject).where(Alert.resolved_at.is_(None)).order_by(Alert.subject)
        # Only one of the two has been reached since.
        assert session.scalars(open_subjects).all() == ["alert-opened emails", "alert-resolved emails", "batch 8"]
        tick()
        assert session.scalars(open_subjects).all() == []
    assert "failed" in tick.column_values(Notification.status)


def test_alert_about_alert_emails_is_over_once_the_address_is_corrected(
    tick: Tick, mailbox: MailboxProcess, set_variables: SetVariables
) -> None:
    set_variables(ALERT_EMAILS=f"typo@seedtrust.example,{ON_CALL[0]}")
    mailbox.control.inject_fault("reject", recipient="typo@seedtrust.example", times=None)
    tick(stuck())
    tick(stuck())
    assert (tick.last_alert().subject, tick.last_alert().resolved_at) == ("alert-opened emails", None)
    set_variables(ALERT_EMAILS=ON_CALL[0])
    tick(stuck())
    assert tick.last_alert().resolved_at is not None


def test_two_health_sensors_at_once_notify_people_once(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, internal_api: InternalApiServer
) -> None:
    for number in range(3):
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(lambda _, number=number: tick(stuck(subject=f"batch {number}")), range(3)))
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: tick(), range(3)))
    # What one of them has claimed when another one ends is sent by the first.
    for _ in range(2):
        tick.make_all_due()
        tick()
    assert subjects(mailbox) == {
        f"{change}: batch stuck, batch {number}": len(ON_CALL)
        for number in range(3)
        for change in ("CRITICAL", "Resolved")
    }
    assert Counter(event["event"] for event in posthog.events()) == {"alert_opened": 3, "alert_resolved": 3}
    assert internal_api.posted_statuses()[-1]["status"] == "up"


def test_event_abandoned_without_a_key_is_delivered_with_the_right_one(
    tick: Tick, posthog: PostHogServer, set_variables: SetVariables
) -> None:
    posthog.respond_with(401)
    tick(stuck())
    key = os.environ["POSTHOG_API_KEY"]
    set_variables(POSTHOG_API_KEY=None)
    tick(stuck())
    set_variables(POSTHOG_API_KEY=key)
    posthog.clear()
    tick(stuck())
    assert posthog.events() == []
    tick(stuck(), later=LATER)
    assert [event["event"] for event in posthog.events()] == ["alert_opened"]


def test_alert_resolved_days_ago_is_not_owed_to_a_new_channel(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    with sessions.begin() as session:
        long_ago = func.now() - OWED_AFTER_RESOLUTION
        session.add(Alert(rule="bank_silent", subject="Huntington", severity="CRITICAL", resolved_at=long_ago))
    tick()
    assert subjects(mailbox) == {}


class Crash(BaseException):
    """The process ends here, as far as the database can tell."""


@contextmanager
def crash_at_commit(sessions: sessionmaker[Session], number: int, *, before: bool) -> Iterator[Counter[str]]:
    """Crash just before or after the commit with this number, from 1; yields a count of commits and crashes."""
    commits: Counter[str] = Counter()

    def count_or_crash(_session: Session) -> None:
        commits["seen"] += 1
        if commits["seen"] == number:
            raise Crash

    name = "before_commit" if before else "after_commit"
    event.listen(sessions, name, count_or_crash)
    try:
        yield commits
    except Crash:
        commits["crashed"] += 1
    finally:
        event.remove(sessions, name, count_or_crash)


def test_tick_killed_with_claimed_alert_emails_delays_them_two_minutes(tick: Tick) -> None:
    number = 0
    while not any(tick.column_values(Notification.claim_token)):
        number += 1
        assert number < 30, "some commit follows the claim of the emails"
        with crash_at_commit(tick.sessions, number, before=False):
            tick(stuck(subject=f"batch {number}"))
    with tick.sessions() as session:
        wait = session.scalar(select(func.max(Notification.next_attempt_at - func.now())))
    assert wait is not None
    assert timedelta(minutes=1) < wait <= timedelta(minutes=2)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_tick_crash_at_any_commit_loses_and_repeats_no_notification(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, internal_api: InternalApiServer, before: bool
) -> None:
    has_crashed = True
    number = 0
    while has_crashed:
        number += 1
        # One alert is opened, and the alert of the previous tick is resolved.
        finding = stuck(subject=f"batch {number}")
        with crash_at_commit(tick.sessions, number, before=before) as commits:
            tick(finding)
        has_crashed = commits["crashed"] == 1
        tick.make_all_due()
        tick(finding)
    tick()
    assert number > 10, "a tick has more than 10 commits"
    emails = Counter((message_id, recipient) for recipient, message_id in mailbox.control.message_ids())
    assert len(emails) == number * len(ON_CALL) * 2
    # A crash can lose the response to one email, or to one event; the duplicate has the same id.
    assert sum(emails.values()) <= len(emails) + number
    events = {(event["event"], event["uuid"]) for event in posthog.events()}
    assert Counter(name for name, _ in events) == {"alert_opened": number, "alert_resolved": number}
    assert internal_api.posted_statuses()[-1]["status"] == "up"
    assert set(tick.column_values(Notification.status)) == {"sent"}
    with tick.sessions() as session:
        recorded = session.execute(select(AlertNotification.channel, AlertNotification.notification)).all()
    assert Counter(map(tuple, recorded)) == {
        (channel, notification): number
        for channel in ("email", "posthog", "internal_api")
        for notification in ("opened", "resolved")
    }
