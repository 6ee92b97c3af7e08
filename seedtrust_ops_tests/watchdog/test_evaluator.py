"""What the watchdog takes for trouble: one cause is one trouble, and nothing is told before its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seedtrust_ops.config.watchdog import WatchdogSettings
from seedtrust_ops.dagster_db.heartbeats import PARTS
from seedtrust_ops.dagster_db.ticks import Kind, Ticking
from seedtrust_ops.watchdog.evaluator import Past, ProbeVerdict, judge
from seedtrust_ops.watchdog.probes import DagsterFacts, Look

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def beats(seconds: float = 10, **of_parts: float) -> dict[str, datetime]:
    """Every part's last heartbeat, so many seconds ago."""
    return {part: ago(of_parts.get(part, seconds)) for part in PARTS}


def ticking(name: str = "some_sensor", *, silent: float | None = -10, status: str | None = "SKIPPED") -> Ticking:
    """A sensor that is silent for so many seconds; below 0: will be; None: it is off."""
    return Ticking(
        name=name,
        kind=Kind.SENSOR,
        is_on=silent is not None,
        on_since=LONG_AGO,
        interval_seconds=5,
        last_tick_at=ago(5),
        last_tick_status=status,
        last_good_at=ago(70 + (silent or 0)),
        due_at=None if silent is None else ago(silent + 65),
        silent_at=None if silent is None else ago(silent),
    )


def seen(
    heartbeats: dict[str, datetime] | None = None,
    ticks: tuple[Ticking, ...] = (),
    *,
    application: str | None = None,
    dagster: str | None = None,
) -> Look:
    facts = None if dagster else DagsterFacts(beats() if heartbeats is None else heartbeats, ticks)
    return Look(NOW, application, dagster, facts)


def judged(look: Look, **past: Any) -> ProbeVerdict:
    return judge(look, Past(**{"watching_since": LONG_AGO} | past), WatchdogSettings())


@pytest.mark.parametrize(
    ("look", "past", "expected"),
    [
        pytest.param(seen(), {}, set(), id="all is well"),
        pytest.param(seen(beats(119)), {}, set(), id="heartbeats are late, and still borne"),
        pytest.param(seen(beats(120)), {}, {"daemon_silent daemon"}, id="no part beats"),
        pytest.param(seen(beats(SENSOR=179)), {}, set(), id="one part is late, as the scheduler may be"),
        pytest.param(seen(beats(SENSOR=180)), {}, {"daemon_silent daemon"}, id="one part hangs"),
        pytest.param(seen({}), {}, {"daemon_silent daemon"}, id="no daemon ever beat"),
        pytest.param(seen({}), {"watching_since": ago(119)}, set(), id="the first daemon may be starting"),
        pytest.param(seen(ticks=(ticking(silent=-1),)), {}, set(), id="a tick is late, and still borne"),
        pytest.param(seen(ticks=(ticking(silent=0),)), {}, {"ticks_stopped some_sensor"}, id="ticks stopped"),
        pytest.param(seen(ticks=(ticking(silent=None),)), {}, set(), id="what is off need not tick"),
        pytest.param(
            seen(beats(130), (ticking(silent=60),)),
            {},
            {"daemon_silent daemon"},
            id="the daemon's silence explains ticks",
        ),
        pytest.param(seen(beats(50), (ticking(silent=9),)), {}, set(), id="the daemon may be dying, and ticks with it"),
        pytest.param(
            seen(ticks=(ticking(silent=500),)),
            {"recovered_at": ago(119)},
            set(),
            id="what came back needs until the next minute, and the grace",
        ),
        pytest.param(
            seen(ticks=(ticking(silent=500),)),
            {"recovered_at": ago(120)},
            {"ticks_stopped some_sensor"},
            id="it came back, and this one did not",
        ),
        pytest.param(
            seen(beats(900)),
            {"unreached_since": {"dagster": ago(800)}},
            set(),
            id="no heartbeat was stored in an outage",
        ),
        pytest.param(
            seen(beats(900)), {"recovered_at": ago(120)}, {"daemon_silent daemon"}, id="nor since the outage ended"
        ),
        pytest.param(seen(dagster="It is down."), {}, set(), id="a database is away for one look"),
        pytest.param(
            seen(dagster="It is down."),
            {"unreached_since": {"dagster": ago(30)}},
            {"database_down dagster"},
            id="a database is away",
        ),
        pytest.param(
            seen(application="It is down.", dagster="It is down."),
            {"unreached_since": {"dagster": ago(31), "application": ago(31)}},
            {"database_down dagster", "database_down application"},
            id="both are away",
        ),
        pytest.param(
            seen(ticks=(ticking(silent=99, status="FAILURE"),), application="It is down."),
            {"unreached_since": {"application": ago(31)}},
            {"database_down application"},
            id="ticks fail while the application's database is away",
        ),
    ],
)
def test_trouble(look: Look, past: dict[str, Any], expected: set[str]) -> None:
    assert {" ".join(trouble.key) for trouble in judged(look, **past).troubles} == expected


@pytest.mark.parametrize(
    ("look", "unknown"),
    [
        (seen(), set()),
        (seen(dagster="It is down."), {"daemon_silent", "ticks_stopped"}),
        (seen(application="It is down."), {"ticks_stopped"}),
        (seen(beats(130)), {"ticks_stopped"}),
        (seen(beats(50)), {"ticks_stopped"}),
    ],
)
def test_what_can_not_be_told_is_not_taken_for_over(look: Look, unknown: set[str]) -> None:
    assert judged(look).unknown == unknown


def test_recovery_counts_from_the_first_look_at_which_all_is_reached_and_beats() -> None:
    down = judged(seen(dagster="It is down."), unreached_since={"dagster": ago(300)})
    assert down.past.unreached_since == {"dagster": ago(300)}
    assert judge(seen(), down.past, WatchdogSettings()).past.recovered_at == NOW
    late = judged(seen(beats(50)))
    assert late.past.recovered_at is None
    assert judge(seen(), late.past, WatchdogSettings()).past.recovered_at == NOW
    assert judged(seen(), recovered_at=ago(7)).past.recovered_at == ago(7)


def test_sentences_say_since_when_what_and_what_to_do() -> None:
    (silent,) = judged(seen(beats(130))).troubles
    assert silent.severity == "CRITICAL"
    assert "no heartbeat since 2026-07-01 11:57:50 UTC" in silent.detail
    assert "seedtrust-ops worker" in silent.detail
    (hangs,) = judged(seen(beats(SCHEDULER=300))).troubles
    assert "its part SCHEDULER has sent no heartbeat" in hangs.detail
    (stopped,) = judged(seen(ticks=(ticking(silent=60, status="STARTED"),))).troubles
    assert stopped.severity == "HIGH"
    assert "since 2026-07-01 11:57:50 UTC, and should every 5 seconds; its newest tick is STARTED" in stopped.detail
    (down,) = judged(seen(dagster="It refused."), unreached_since={"dagster": ago(60)}).troubles
    assert down.detail.startswith("It refused. Unreached since 11:59:00 UTC.")
