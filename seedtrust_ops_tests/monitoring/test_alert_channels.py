"""Alert notifications: each is sent once on every channel, also after outages and crashes; the servers are real."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.alert_notifications.acknowledgement import acknowledge
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.evaluator import evaluate
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.domain.outbox.email_claims import alert_subject
from seedtrust_ops.monitoring.alert_channels import (
    AlertDelivery,
    configured_channels,
    enqueue_alert_notifications,
    send_due_notifications,
)
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.sandbox.external_services.control_client import InternalApiServer, PostHogServer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, Notification, OutgoingEvent
from seedtrust_ops_tests.monitoring.conftest import ON_CALL
from seedtrust_ops_tests.support.environment import SetVariables

pytestmark = pytest.mark.usefixtures("health_environment")

CRITICAL, HIGH, MEDIUM, LOW = (Severity(name) for name in ("CRITICAL", "HIGH", "MEDIUM", "LOW"))
A_DAY = date(2026, 3, 3)


class Tick:
    """A health tick with one rule that returns the test's findings."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def __call__(self, *findings: Finding, digest_of: date | None = None) -> AlertDelivery:
        rule = HealthRule("batch_stuck", lambda _session: findings)
        evaluate(self.sessions, [rule], now=datetime.now(UTC), last_evaluated={}, quiet_seconds=0, max_seconds=60)
        channels = configured_channels(MailResource(), InternalApiResource(), PostHogResource())
        enqueue_alert_notifications(self.sessions, channels, digest_of=digest_of)
        return send_due_notifications(self.sessions, channels)

    def make_all_due(self) -> None:
        """End every retry delay and the hold of every crashed dispatcher."""
        with self.sessions.begin() as session:
            session.execute(
                update(Notification).where(Notification.status == "queued").values(next_attempt_at=func.now())
            )
            session.execute(update(OutgoingEvent).values(next_attempt_at=func.now()))

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
    assert (tick.last_alert().notified_at is not None) == is_urgent


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
    tick(stuck(CRITICAL))
    tick()
    assert subjects(mailbox) == before
    resolved = tick.last_alert()
    assert resolved.resolved_at is not None
    assert resolved.resolution_notified_at is not None
    # The status of component `jobs` is not a notification: it must stay correct.
    assert [post["status"] for post in internal_api.posted_statuses()] == ["degraded", "down", "up"]


def test_alert_resolved_before_its_notification_sends_both(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    with sessions.begin() as session:
        session.add(Alert(rule="bank_silent", subject="Huntington", severity="CRITICAL", resolved_at=func.now()))
    tick()
    assert subjects(mailbox) == {
        "CRITICAL: bank silent, Huntington": len(ON_CALL),
        "Resolved: bank silent, Huntington": len(ON_CALL),
    }


def test_alert_about_alert_emails_is_not_emailed(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, posthog: PostHogServer
) -> None:
    with sessions.begin() as session:
        subject = alert_subject("alert-opened")
        session.add(Alert(rule="notifications_failing", subject=subject, severity="HIGH"))
    tick()
    assert subjects(mailbox) == {}
    assert [event["event"] for event in posthog.events()] == ["alert_opened"]


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
    assert sent == {"ALERT_EMAILS": len(ON_CALL), "POSTHOG_API_KEY": 1, "INTERNAL_API_URL": 1} | {missing: 0}


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
        assert session.scalar(text("select count(*) from ops.alerts where resolution_notified_at is null")) == 0
