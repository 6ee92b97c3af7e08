"""Events for PostHog and the internal API: outages and crashes lose none, and no event blocks another."""

import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport
from seedtrust_ops.domain.outbox.event_sink import EVENT_RETRIES, send_due_events
from seedtrust_ops.domain.outbox.store import Destination, Event, abandon_all, enqueue_events
from seedtrust_ops.ports.events import EventRejected, PostHogUnavailable
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer
from seedtrust_ops.tables import OutgoingEvent


@pytest.fixture
def posthog(posthog_server: PostHogServer) -> PostHogServer:
    posthog_server.clear()
    return posthog_server


def enqueue(sessions: sessionmaker[Session], *names: str) -> None:
    with sessions.begin() as session:
        enqueue_events(
            session, [Event(Destination.POSTHOG, f"key:{name}", {"event": name, "properties": {}}) for name in names]
        )


def send_due(sessions: sessionmaker[Session], sink: Any) -> DeliveryReport:
    return send_due_events(sessions, Destination.POSTHOG, sink, max_seconds=600)


def make_all_due(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(update(OutgoingEvent).values(next_attempt_at=func.now()))


def set_age(sessions: sessionmaker[Session], age: timedelta) -> None:
    with sessions.begin() as session:
        session.execute(update(OutgoingEvent).values(created_at=func.now() - age))


def rows(sessions: sessionmaker[Session]) -> dict[str, OutgoingEvent]:
    with sessions() as session:
        return {row.dedupe_key.removeprefix("key:"): row for row in session.scalars(select(OutgoingEvent))}


class FakeSink:
    """Accepts events, except that it rejects one name, fails at another, and has a bug that a third one meets."""

    def __init__(self, *, rejects: str = "", fails_at: str = "", breaks_at: str = "") -> None:
        self.accepted: list[str] = []
        self.rejects = rejects
        self.fails_at = fails_at
        self.breaks_at = breaks_at

    def send(self, _dedupe_key: str, body: Mapping[str, Any], _at: datetime) -> None:
        name = body["event"]
        if name == self.rejects:
            raise EventRejected("The name is not allowed.")
        if name == self.fails_at:
            raise PostHogUnavailable("PostHog is down.")
        if name == self.breaks_at:
            raise UnicodeError("maria@example.test")
        self.accepted.append(name)


def test_server_gets_every_event_once_after_an_outage(sessions: sessionmaker[Session], posthog: PostHogServer) -> None:
    names = [f"event {number}" for number in range(120)]
    enqueue(sessions, *names)
    project = PostHog(posthog.url, SecretStr("phc_sandbox"), timeout_seconds=60)
    posthog.respond_with(503)
    assert "responded 503" in (send_due(sessions, project).error or "")
    posthog.clear()
    make_all_due(sessions)
    assert send_due(sessions, project).sent == len(names)
    assert send_due(sessions, project).sent == 0
    assert sorted(event["event"] for event in posthog.events()) == sorted(names)


def test_rejected_event_is_abandoned_with_the_reason_and_blocks_no_other(sessions: sessionmaker[Session]) -> None:
    enqueue(sessions, "a", "bad", "c")
    sink = FakeSink(rejects="bad")
    report = send_due(sessions, sink)
    assert (report.sent, report.failed, report.error) == (2, 1, None)
    assert sink.accepted == ["a", "c"]
    bad = rows(sessions)["bad"]
    assert (bad.status, bad.sent_at, bad.last_error) == ("failed", None, "The name is not allowed.")
    make_all_due(sessions)
    assert send_due(sessions, FakeSink()).sent == 0


def test_event_that_always_fails_does_not_block_the_others(sessions: sessionmaker[Session]) -> None:
    enqueue(sessions, "a", "poison", "c", "d")
    sink = FakeSink(fails_at="poison")
    assert send_due(sessions, sink).error == "PostHog is down."
    assert send_due(sessions, sink).error is None
    assert sink.accepted == ["a", "c", "d"]
    remaining = rows(sessions)
    assert {name: row.attempts for name, row in remaining.items()} == {"a": 1, "poison": 1, "c": 1, "d": 1}


def test_unexpected_error_of_one_event_is_its_own_and_names_no_data(sessions: sessionmaker[Session]) -> None:
    enqueue(sessions, "a", "poison", "c")
    sink = FakeSink(breaks_at="poison")
    report = send_due(sessions, sink)
    assert (report.sent, report.will_retry, report.error, sink.accepted) == (2, 1, None, ["a", "c"])
    error = rows(sessions)["poison"].last_error or ""
    assert re.fullmatch(r"UnicodeError, an unexpected error, in test_event_dispatcher\.py, line \d+\.", error)
    set_age(sessions, timedelta(days=1))
    make_all_due(sessions)
    assert send_due(sessions, sink).failed == 1
    assert rows(sessions)["poison"].status == "failed"


def test_retry_delays_double_up_to_an_hour() -> None:
    seconds = [EVENT_RETRIES.delay(attempts).total_seconds() for attempts in (1, 2, 3, 8, 9, 40)]
    assert seconds == [15, 30, 60, 1920, 3600, 3600]


@pytest.mark.parametrize(("hours", "status"), [(23, "queued"), (25, "failed")])
def test_event_whose_attempt_fails_after_a_day_has_failed(
    sessions: sessionmaker[Session], hours: int, status: str
) -> None:
    enqueue(sessions, "a")
    set_age(sessions, timedelta(hours=hours))
    send_due(sessions, FakeSink(fails_at="a"))
    row = rows(sessions)["a"]
    assert row.status == status
    assert (row.last_error or "").startswith("PostHog is down.")


def test_old_event_that_was_never_tried_is_sent(sessions: sessionmaker[Session]) -> None:
    enqueue(sessions, "a")
    set_age(sessions, timedelta(days=3))
    assert send_due(sessions, FakeSink()).sent == 1


def test_two_concurrent_dispatchers_send_every_event_once(sessions: sessionmaker[Session]) -> None:
    names = [f"event {number}" for number in range(300)]
    enqueue(sessions, *names)
    sinks = [FakeSink(), FakeSink()]
    barrier = Barrier(2)

    def run(sink: FakeSink) -> int:
        barrier.wait(60)
        return send_due(sessions, sink).sent

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run, sinks)) == len(names)
    assert Counter(sinks[0].accepted + sinks[1].accepted) == Counter(names)


def test_crash_after_an_event_duplicates_only_that_one_after_the_hold(sessions: sessionmaker[Session]) -> None:
    class Crash(BaseException):
        pass

    class CrashingSink(FakeSink):
        def send(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
            super().send(dedupe_key, body, at)
            if body["event"] == "b":
                raise Crash

    enqueue(sessions, "a", "b", "c")
    crashing, next_sink = CrashingSink(), FakeSink()
    with pytest.raises(Crash):
        send_due(sessions, crashing)
    assert send_due(sessions, next_sink).sent == 0
    make_all_due(sessions)
    assert send_due(sessions, next_sink).sent == 2
    assert crashing.accepted + next_sink.accepted == ["a", "b", "b", "c"]


def test_dispatcher_whose_hold_has_ended_sends_no_further_events(sessions: sessionmaker[Session]) -> None:
    other = FakeSink()

    class FrozenSink(FakeSink):
        def send(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
            super().send(dedupe_key, body, at)
            make_all_due(sessions)
            send_due(sessions, other)

    enqueue(sessions, "a", "b", "c")
    frozen = FrozenSink()
    send_due(sessions, frozen)
    assert (frozen.accepted, other.accepted) == (["a"], ["a", "b", "c"])


def test_disabled_destination_abandons_its_waiting_events(sessions: sessionmaker[Session]) -> None:
    enqueue(sessions, "sent")
    send_due(sessions, FakeSink())
    enqueue(sessions, "waiting", "recent")
    with sessions.begin() as session:
        assert abandon_all(session, Destination.POSTHOG, "POSTHOG_API_KEY is not set.") == 2
        assert abandon_all(session, Destination.POSTHOG, "POSTHOG_API_KEY is not set.") == 0
    assert {name: (row.status, row.last_error) for name, row in rows(sessions).items()} == {
        "sent": ("sent", None),
        "waiting": ("failed", "POSTHOG_API_KEY is not set."),
        "recent": ("failed", "POSTHOG_API_KEY is not set."),
    }
