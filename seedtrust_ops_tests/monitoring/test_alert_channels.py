"""Who is told of what, once each, on real mail, PostHog and internal API servers, after outages and deaths too."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import event, func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.alert_notifications.acknowledgement import acknowledge
from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.health.evaluator import evaluate
from seedtrust_ops.domain.health.rule import Rule
from seedtrust_ops.domain.outbox.email_claims import alert_subject
from seedtrust_ops.monitoring.alert_channels import Delivery, deliver, tell_people, ways_of_telling
from seedtrust_ops.orchestration.dagster_resources import InternalApiResource, MailResource, PostHogResource
from seedtrust_ops.sandbox.external_services.control_client import InternalApiServer, PostHogServer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert, Notification, OutgoingEvent
from seedtrust_ops_tests.monitoring.conftest import ON_CALL

pytestmark = pytest.mark.usefixtures("watching_environment")

CRITICAL, HIGH, MEDIUM, LOW = (Severity(name) for name in ("CRITICAL", "HIGH", "MEDIUM", "LOW"))
A_DAY = date(2026, 3, 3)


class Tick:
    """What a health tick does, with one rule that finds what a test says."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.sessions = sessions

    def __call__(self, *findings: Finding, digest_of: date | None = None) -> Delivery:
        rule = Rule("batch_stuck", lambda _session: findings)
        evaluate(self.sessions, [rule], now=datetime.now(UTC), last_asked={}, quiet_seconds=0, longest_seconds=60)
        ways = ways_of_telling(MailResource(), InternalApiResource(), PostHogResource())
        tell_people(self.sessions, ways, digest_of=digest_of)
        return deliver(self.sessions, ways)

    def let_time_pass(self) -> None:
        """Let every pause and every dead deliverer's hold be over."""
        with self.sessions.begin() as session:
            session.execute(
                update(Notification).where(Notification.status == "queued").values(next_attempt_at=func.now())
            )
            session.execute(update(OutgoingEvent).values(next_attempt_at=func.now()))

    def alert(self) -> Alert:
        with self.sessions() as session:
            return session.scalars(select(Alert).order_by(Alert.id.desc()).limit(1)).one()

    def all(self, column: Any) -> list[Any]:
        with self.sessions() as session:
            return list(session.scalars(select(column).order_by(column)))


@pytest.fixture
def tick(sessions: sessionmaker[Session]) -> Tick:
    return Tick(sessions)


def stuck(severity: Severity = CRITICAL, subject: str = "batch 7") -> Finding:
    return Finding("batch_stuck", subject, severity, "It is stuck.")


def subjects(mailbox: MailboxProcess) -> dict[str, int]:
    return dict(Counter(letter.subject for letter in mailbox.control.letters()))


@pytest.mark.parametrize(("severity", "status"), [(CRITICAL, "down"), (HIGH, "degraded"), (MEDIUM, "up"), (LOW, "up")])
def test_severity_decides_who_is_told_at_once(
    tick: Tick,
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
    severity: Severity,
    status: str,
) -> None:
    tick(stuck(severity))
    at_once = severity in (CRITICAL, HIGH)
    assert subjects(mailbox) == ({f"{severity}: batch stuck, batch 7": len(ON_CALL)} if at_once else {})
    assert [one["event"] for one in posthog.events()] == (["alert_opened"] if at_once else [])
    assert all("detail" not in one["properties"] for one in posthog.events())
    assert [one["status"] for one in internal_api.posts()] == [status]
    assert (tick.alert().notified_at is not None) == at_once


def test_alert_that_gets_worse_is_told_again_and_one_that_gets_better_is_not(
    tick: Tick, mailbox: MailboxProcess, internal_api: InternalApiServer
) -> None:
    for severity in (LOW, HIGH, MEDIUM, CRITICAL, HIGH):
        tick(stuck(severity))
    tick()
    assert subjects(mailbox) == {
        "HIGH: batch stuck, batch 7": len(ON_CALL),
        "CRITICAL: batch stuck, batch 7": len(ON_CALL),
        "Over: batch stuck, batch 7": len(ON_CALL),
    }
    assert [one["status"] for one in internal_api.posts()] == ["up", "degraded", "down", "up"]


def test_acknowledged_alert_is_told_no_more_and_its_end_is_recorded(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, internal_api: InternalApiServer
) -> None:
    tick(stuck(HIGH))
    before = subjects(mailbox)
    with sessions.begin() as session:
        acknowledge(session, tick.alert().id, "Maria")
    tick(stuck(CRITICAL))
    tick()
    assert subjects(mailbox) == before
    over = tick.alert()
    assert over.resolved_at is not None
    assert over.resolution_notified_at is not None
    # How the jobs are is no telling: it must be right.
    assert [one["status"] for one in internal_api.posts()] == ["degraded", "down", "up"]


def test_alert_that_is_over_before_anybody_was_told_is_told_with_its_end(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess
) -> None:
    with sessions.begin() as session:
        session.add(Alert(rule="bank_silent", subject="Huntington", severity="CRITICAL", resolved_at=func.now()))
    tick()
    assert subjects(mailbox) == {
        "CRITICAL: bank silent, Huntington": len(ON_CALL),
        "Over: bank silent, Huntington": len(ON_CALL),
    }


def test_letter_about_alert_letters_is_not_written(
    tick: Tick, sessions: sessionmaker[Session], mailbox: MailboxProcess, posthog: PostHogServer
) -> None:
    with sessions.begin() as session:
        subject = alert_subject("alert-opened")
        session.add(Alert(rule="notifications_failing", subject=subject, severity="HIGH"))
    tick()
    assert subjects(mailbox) == {}
    assert [one["event"] for one in posthog.events()] == ["alert_opened"]


def test_digest_tells_of_the_day_once_and_lists_new_lasting_and_gone(tick: Tick, mailbox: MailboxProcess) -> None:
    tick(stuck(MEDIUM, "first"), stuck(LOW, "second"), stuck(HIGH, "urgent"))
    mailbox.control.empty()
    for _ in range(2):
        tick(stuck(MEDIUM, "first"), stuck(LOW, "second"), stuck(HIGH, "urgent"), digest_of=A_DAY)
    assert subjects(mailbox) == {"Alerts of Tuesday, March 3, 2026: 2 new, 0 still open, 0 over": len(ON_CALL)}
    mailbox.control.empty()
    # One opens and ends between two digests; one that was acknowledged is passed over.
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"), stuck(LOW, "short"))
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"))
    tick(stuck(MEDIUM, "first"), stuck(HIGH, "urgent"), digest_of=date(2026, 3, 4))
    assert subjects(mailbox) == {"Alerts of Wednesday, March 4, 2026: 0 new, 1 still open, 2 over": len(ON_CALL)}
    mailbox.control.empty()
    tick(stuck(HIGH, "urgent"), digest_of=date(2026, 3, 5))
    assert subjects(mailbox) == {"Alerts of Thursday, March 5, 2026: 0 new, 0 still open, 1 over": len(ON_CALL)}
    mailbox.control.empty()
    tick(stuck(HIGH, "urgent"), digest_of=date(2026, 3, 6))
    assert subjects(mailbox) == {}


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("ALERT_EMAILS", "ALERT_EMAILS is not set."),
        ("POSTHOG_API_KEY", "POSTHOG_API_KEY is not set."),
        ("INTERNAL_API_URL", "INTERNAL_API_URL is not set."),
        ("SMTP_HOST", "SMTP_HOST is not set."),
    ],
)
def test_way_that_is_not_configured_keeps_none_of_the_others_from_telling(
    tick: Tick,
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    sentence: str,
) -> None:
    monkeypatch.delenv(variable)
    get_settings.cache_clear()
    delivery = tick(stuck())
    ways = ways_of_telling(MailResource(), InternalApiResource(), PostHogResource())
    assert sentence in " ".join([*delivery.troubles.values(), *ways.missing.values()])
    told = {
        "ALERT_EMAILS": len(mailbox.control.letters()),
        "POSTHOG_API_KEY": len(posthog.events()),
        "INTERNAL_API_URL": len(internal_api.posts()),
    }
    lacking = "ALERT_EMAILS" if variable == "SMTP_HOST" else variable
    assert told == {"ALERT_EMAILS": len(ON_CALL), "POSTHOG_API_KEY": 1, "INTERNAL_API_URL": 1} | {lacking: 0}


def test_ways_that_were_down_tell_everything_once_when_they_are_back_and_the_status_that_is_so_then(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, internal_api: InternalApiServer
) -> None:
    mailbox.control.order("postpone", times=None)
    for server in (posthog, internal_api):
        server.answer_with(503)
    delivery = tick(stuck())
    assert {str(name) for name in delivery.troubles} == {"posthog", "internal_api"}
    tick.let_time_pass()
    tick()
    assert mailbox.control.letters() == []

    mailbox.control.clear_orders()
    for server in (posthog, internal_api):
        server.clear()
    tick.let_time_pass()
    for _ in range(2):
        tick()
    assert subjects(mailbox) == {
        "CRITICAL: batch stuck, batch 7": len(ON_CALL),
        "Over: batch stuck, batch 7": len(ON_CALL),
    }
    assert Counter(one["event"] for one in posthog.events()) == {"alert_opened": 1, "alert_resolved": 1}
    # It is up again: that it was down for a while must not be told now.
    assert [one["status"] for one in internal_api.posts()] == ["up"]


class Death(BaseException):
    """The process ends here, as far as the database can tell."""


@contextmanager
def dies_at_commit(sessions: sessionmaker[Session], number: int, *, before: bool) -> Iterator[Counter[str]]:
    """End the process at the commit of this number, from 1: just before it or just after; yields what happened."""
    commits: Counter[str] = Counter()

    def strike(_session: Session) -> None:
        commits["seen"] += 1
        if commits["seen"] == number:
            raise Death

    name = "before_commit" if before else "after_commit"
    event.listen(sessions, name, strike)
    try:
        yield commits
    except Death:
        commits["died"] += 1
    finally:
        event.remove(sessions, name, strike)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_tick_that_dies_at_any_commit_loses_no_telling_and_tells_none_twice(
    tick: Tick, mailbox: MailboxProcess, posthog: PostHogServer, internal_api: InternalApiServer, before: bool
) -> None:
    died = True
    number = 0
    while died:
        number += 1
        # One alert is opened and the one of the tick before resolved.
        finding = stuck(subject=f"batch {number}")
        with dies_at_commit(tick.sessions, number, before=before) as commits:
            tick(finding)
        died = commits["died"] == 1
        tick.let_time_pass()
        tick(finding)
    tick()
    assert number > 10, "it died at every commit of a tick, and there are that many"
    letters = Counter((message_id, recipient) for recipient, message_id in mailbox.control.message_ids())
    assert len(letters) == number * len(ON_CALL) * 2
    # The mail server's answer to the one letter in hand may be lost, and PostHog's: they know the copy by its id.
    assert sum(letters.values()) <= len(letters) + number
    events = {(one["event"], one["uuid"]) for one in posthog.events()}
    assert Counter(name for name, _ in events) == {"alert_opened": number, "alert_resolved": number}
    assert internal_api.posts()[-1]["status"] == "up"
    assert set(tick.all(Notification.status)) == {"sent"}
    with tick.sessions() as session:
        assert session.scalar(text("select count(*) from ops.alerts where resolution_notified_at is null")) == 0
