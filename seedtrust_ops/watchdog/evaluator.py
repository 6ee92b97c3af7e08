"""Decides what is trouble in what the watchdog sees: one pure function over facts and what is remembered.

One cause is one trouble: while a database is away or the daemon is silent, no tick is missed for a reason of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from seedtrust_ops.config.watchdog import WatchdogSettings
from seedtrust_ops.dagster_db.ticks import Ticking
from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.probes import DagsterFacts, Look

DAEMON_SILENT = "daemon_silent"
TICKS_STOPPED = "ticks_stopped"
DATABASE_DOWN = "database_down"
RULES = (DAEMON_SILENT, TICKS_STOPPED, DATABASE_DOWN)

SCHEDULER_SLEEPS = timedelta(seconds=60)
"""Dagster's scheduler sleeps until the next minute: so far apart are its heartbeats, and so late its first ticks may be
when what it needs comes back. The other parts beat every 30 s."""
BEATS_LATE = timedelta(seconds=45)
"""From here on the daemon may be dying, and what stands still may do so with it."""


@dataclass(frozen=True)
class Trouble:
    """Something that somebody must be told of; `since` is when it began as far as is known (UTC)."""

    rule: str
    subject: str
    severity: Severity
    detail: str
    since: datetime

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same trouble at the next look."""
        return self.rule, self.subject


@dataclass(frozen=True)
class Past:
    """What must be remembered from look to look: since when (UTC) we watch, which database has not been reached
    since when, whether the daemon's heartbeats were late, and when the last of these was over."""

    watching_since: datetime
    unreached_since: Mapping[str, datetime] = field(default_factory=dict)
    beats_late: bool = False
    recovered_at: datetime | None = None


@dataclass(frozen=True)
class ProbeVerdict:
    """What is wrong now. Trouble of a rule in `unknown` that was there before may be there still: nobody can tell."""

    troubles: tuple[Trouble, ...]
    unknown: frozenset[str]
    past: Past


def judge(look: Look, past: Past, settings: WatchdogSettings) -> ProbeVerdict:
    """Return what is wrong as of `look`, and what to remember of it."""
    unreached = {
        name: past.unreached_since.get(name, look.at)
        for name, trouble in (("application", look.application_trouble), ("dagster", look.dagster_trouble))
        if trouble is not None
    }
    beats_late = past.beats_late if look.dagster is None else _beats_late(look.dagster, look.at)
    came_back = set(past.unreached_since) - set(unreached) or (past.beats_late and not beats_late)
    recovered_at = look.at if came_back else past.recovered_at
    troubles = [
        Trouble(
            DATABASE_DOWN,
            name,
            Severity.CRITICAL,
            f"{_sentence(look, name)} Unreached since {since:%H:%M:%S} UTC. "
            "See whether PostgreSQL runs and takes connections; nothing runs without it.",
            since,
        )
        for name, since in unreached.items()
        if look.at - since >= timedelta(seconds=settings.database_seconds)
    ]
    unknown = set()
    if unreached or beats_late:
        unknown.add(TICKS_STOPPED)
    if look.dagster is None:
        unknown.add(DAEMON_SILENT)
    else:
        silent = _daemon_silent(look.dagster, look.at, past.watching_since, recovered_at, settings)
        if silent is not None:
            troubles.append(silent)
            unknown.add(TICKS_STOPPED)
        if TICKS_STOPPED not in unknown:
            troubles += _ticks_stopped(look.dagster.ticks, look.at, recovered_at, settings)
    return ProbeVerdict(
        tuple(troubles), frozenset(unknown), Past(past.watching_since, unreached, beats_late, recovered_at)
    )


def _sentence(look: Look, name: str) -> str:
    return (look.application_trouble if name == "application" else look.dagster_trouble) or ""


def _daemon_silent(
    facts: DagsterFacts,
    now: datetime,
    watching_since: datetime,
    recovered_at: datetime | None,
    settings: WatchdogSettings,
) -> Trouble | None:
    borne = timedelta(seconds=settings.heartbeat_seconds)
    newest = max(facts.heartbeats.values(), default=None)
    if newest is None:
        if now - watching_since < borne:
            return None
        said, since = "Dagster's daemon has never sent a heartbeat to this database", watching_since
    elif now - _later(newest, recovered_at) >= borne:
        said, since = f"Dagster's daemon has sent no heartbeat since {newest:%Y-%m-%d %H:%M:%S} UTC", newest
    else:
        hanging = {
            part: beat
            for part, beat in facts.heartbeats.items()
            if now - _later(beat, recovered_at) >= borne + SCHEDULER_SLEEPS
        }
        if not hanging:
            return None
        said = f"Dagster's daemon lives, but its part {' and '.join(sorted(hanging))} has sent no heartbeat"
        since = min(hanging.values())
    return Trouble(
        DAEMON_SILENT,
        "daemon",
        Severity.CRITICAL,
        f"{said}: schedules, sensors and queued runs may all stand still. See whether `seedtrust-ops worker` runs and "
        "what it printed last, and start it again. Batches that wait are sent by themselves then.",
        since,
    )


def _beats_late(facts: DagsterFacts, now: datetime) -> bool:
    return now - max(facts.heartbeats.values(), default=datetime.min.replace(tzinfo=UTC)) >= BEATS_LATE


def _later(moment: datetime, other: datetime | None) -> datetime:
    return moment if other is None else max(moment, other)


def _ticks_stopped(
    ticks: tuple[Ticking, ...], now: datetime, recovered_at: datetime | None, settings: WatchdogSettings
) -> Iterator[Trouble]:
    if recovered_at is not None and now - recovered_at < SCHEDULER_SLEEPS + timedelta(seconds=settings.grace_seconds):
        return
    for one in ticks:
        if one.silent_at is None or now < one.silent_at:
            continue
        since = one.last_good_at or one.on_since or one.silent_at
        newest = f"its newest tick is {one.last_tick_status}" if one.last_tick_status else "it has never ticked"
        yield Trouble(
            TICKS_STOPPED,
            one.name,
            Severity.HIGH,
            f"{one.name} has not ticked well since {since:%Y-%m-%d %H:%M:%S} UTC, and should every "
            f"{_in_words(one.interval_seconds)}; {newest}. See its ticks in the Dagster UI; if the newest one hangs, "
            "restart the worker.",
            since,
        )


def _in_words(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}s" if seconds != length else unit
    return f"{seconds:.3g} seconds"
