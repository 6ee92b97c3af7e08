"""Events for PostHog and the internal API: each is delivered, whatever is down or dies, and none blocks another."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain.outbox.event_dispatcher import (
    EventPatience,
    EventsReport,
    abandon_all,
    deliver_events,
    purge_events,
)
from seedtrust_ops.domain.outbox.event_store import Destination, Event, queue_events
from seedtrust_ops.ports.events import EventRefused, PostHogUnreachable
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import PostHogServer, start_posthog
from seedtrust_ops.tables import OutgoingEvent

PATIENCE = EventPatience()


@pytest.fixture(scope="module")
def posthog_server() -> Iterator[PostHogServer]:
    with start_posthog() as server:
        yield server


@pytest.fixture
def posthog(posthog_server: PostHogServer) -> PostHogServer:
    posthog_server.clear()
    return posthog_server


def queue(sessions: sessionmaker[Session], *names: str) -> None:
    with sessions.begin() as session:
        queue_events(
            session, [Event(Destination.POSTHOG, f"key:{name}", {"event": name, "properties": {}}) for name in names]
        )


def deliver(sessions: sessionmaker[Session], taker: Any) -> EventsReport:
    return deliver_events(sessions, Destination.POSTHOG, taker, longest_seconds=600)


def let_time_pass(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        session.execute(update(OutgoingEvent).values(next_attempt_at=func.now()))


def age(sessions: sessionmaker[Session], how_old: timedelta) -> None:
    with sessions.begin() as session:
        session.execute(update(OutgoingEvent).values(created_at=func.now() - how_old))


def rows(sessions: sessionmaker[Session]) -> dict[str, OutgoingEvent]:
    with sessions() as session:
        return {row.dedupe_key.removeprefix("key:"): row for row in session.scalars(select(OutgoingEvent))}


class Recorder:
    """Takes events, and refuses or fails at those that it is told to."""

    def __init__(self, *, refuses: str = "", fails_at: str = "") -> None:
        self.taken: list[str] = []
        self.refuses = refuses
        self.fails_at = fails_at

    def take(self, _dedupe_key: str, body: Mapping[str, Any], _at: datetime) -> None:
        name = body["event"]
        if name == self.refuses:
            raise EventRefused("It has no name that is allowed.")
        if name == self.fails_at:
            raise PostHogUnreachable("PostHog is away.")
        self.taken.append(name)


def test_server_that_was_away_gets_every_event_once_when_it_is_back(
    sessions: sessionmaker[Session], posthog: PostHogServer
) -> None:
    names = [f"event {number}" for number in range(120)]
    queue(sessions, *names)
    project = PostHog(posthog.url, SecretStr("phc_sandbox"), timeout_seconds=60)
    posthog.answer_with(503)
    assert "answered 503" in (deliver(sessions, project).trouble or "")
    posthog.clear()
    let_time_pass(sessions)
    assert deliver(sessions, project).sent == len(names)
    assert deliver(sessions, project).sent == 0
    assert sorted(one["event"] for one in posthog.events()) == sorted(names)


def test_refused_event_is_given_up_with_the_reason_and_holds_up_no_other(sessions: sessionmaker[Session]) -> None:
    queue(sessions, "a", "bad", "c")
    taker = Recorder(refuses="bad")
    report = deliver(sessions, taker)
    assert (report.sent, report.refused, report.trouble) == (2, 1, None)
    assert taker.taken == ["a", "c"]
    bad = rows(sessions)["bad"]
    assert (bad.sent_at, bad.trouble) == (None, "It has no name that is allowed.")
    assert bad.abandoned_at is not None
    let_time_pass(sessions)
    assert deliver(sessions, Recorder()).sent == 0


def test_event_at_which_the_destination_always_fails_lets_the_others_by(sessions: sessionmaker[Session]) -> None:
    queue(sessions, "a", "poison", "c", "d")
    taker = Recorder(fails_at="poison")
    assert deliver(sessions, taker).trouble == "PostHog is away."
    assert deliver(sessions, taker).trouble is None
    assert taker.taken == ["a", "c", "d"]
    left = rows(sessions)
    assert {name: row.attempts for name, row in left.items()} == {"a": 1, "poison": 1, "c": 1, "d": 1}


def test_pauses_double_up_to_an_hour() -> None:
    seconds = [PATIENCE.pause(attempts).total_seconds() for attempts in (1, 2, 3, 8, 9, 40)]
    assert seconds == [15, 30, 60, 1920, 3600, 3600]


@pytest.mark.parametrize(("hours", "is_given_up"), [(23, False), (25, True)])
def test_event_is_given_up_when_an_attempt_fails_a_day_after_it_was_queued(
    sessions: sessionmaker[Session], hours: int, is_given_up: bool
) -> None:
    queue(sessions, "a")
    age(sessions, timedelta(hours=hours))
    deliver(sessions, Recorder(fails_at="a"))
    row = rows(sessions)["a"]
    assert (row.abandoned_at is not None) == is_given_up
    assert row.last_error == "PostHog is away."


def test_old_event_that_was_never_tried_is_delivered(sessions: sessionmaker[Session]) -> None:
    queue(sessions, "a")
    age(sessions, timedelta(days=3))
    assert deliver(sessions, Recorder()).sent == 1


def test_two_deliverers_at_once_hand_in_every_event_once(sessions: sessionmaker[Session]) -> None:
    names = [f"event {number}" for number in range(300)]
    queue(sessions, *names)
    takers = [Recorder(), Recorder()]
    together = Barrier(2)

    def run(taker: Recorder) -> int:
        together.wait(60)
        return deliver(sessions, taker).sent

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(run, takers)) == len(names)
    assert Counter(takers[0].taken + takers[1].taken) == Counter(names)


def test_events_of_a_deliverer_that_died_are_the_next_one_s_after_its_hold(sessions: sessionmaker[Session]) -> None:
    class Death(BaseException):
        pass

    class Dies(Recorder):
        def take(self, dedupe_key: str, body: Mapping[str, Any], at: datetime) -> None:
            super().take(dedupe_key, body, at)
            raise Death

    queue(sessions, "a", "b")
    with pytest.raises(Death):
        deliver(sessions, Dies())
    assert deliver(sessions, Recorder()).sent == 0
    let_time_pass(sessions)
    assert deliver(sessions, Recorder()).sent == 2


def test_what_waits_for_a_destination_that_is_switched_off_is_given_up_and_what_is_old_forgotten(
    sessions: sessionmaker[Session],
) -> None:
    queue(sessions, "sent")
    deliver(sessions, Recorder())
    queue(sessions, "waiting")
    with sessions.begin() as session:
        session.execute(text("update ops.outgoing_events set created_at = now() - interval '91 days'"))
        assert purge_events(session) == 1
    queue(sessions, "young")
    with sessions.begin() as session:
        assert abandon_all(session, Destination.POSTHOG, "POSTHOG_API_KEY is not set.") == 2
        assert abandon_all(session, Destination.POSTHOG, "POSTHOG_API_KEY is not set.") == 0
    assert {name: row.last_error for name, row in rows(sessions).items()} == dict.fromkeys(
        ("waiting", "young"), "POSTHOG_API_KEY is not set."
    )
