"""Decides which incidents a probe shows: one pure function of the probe's result and the probe history.

One cause is one incident: while a database is down or the daemon is silent, missed ticks are not reported.
See docs/decisions/watchdog.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from seedtrust_ops.config.alert_thresholds import WatchdogSettings
from seedtrust_ops.dagster_db.daemon_activity import AutomationTicks
from seedtrust_ops.domain.alerts.channel_state import DAEMON_SILENT, DATABASE_DOWN, TICKS_STOPPED
from seedtrust_ops.formatting import format_duration
from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.probes import DagsterFacts, ProbeResult

SCHEDULER_INTERVAL = timedelta(seconds=60)
"""Dagster's scheduler sleeps until the next minute. Its heartbeats are this far apart, and after an outage its first
ticks may be this late. The other daemons send a heartbeat every 30 s."""
HEARTBEAT_LATE = timedelta(seconds=45)
"""From this heartbeat age on the daemon may be failing, and ticks may have stopped for that reason."""


@dataclass(frozen=True)
class Incident:
    """Something that people must be notified of; `since` is when it began, as far as is known (UTC)."""

    rule: str
    subject: str
    severity: Severity
    detail: str
    since: datetime

    @property
    def key(self) -> tuple[str, str]:
        """The identity of the incident across probes."""
        return self.rule, self.subject


@dataclass(frozen=True)
class ProbeHistory:
    """What one probe must know of earlier ones; times in UTC.

    `unreachable_since` is by database (`application`, `dagster`). `recovered_at` is when the databases and the
    heartbeats last came back.
    """

    watching_since: datetime
    unreachable_since: Mapping[str, datetime] = field(default_factory=dict)
    are_heartbeats_late: bool = False
    recovered_at: datetime | None = None


@dataclass(frozen=True)
class ProbeVerdict:
    """The current incidents. Earlier incidents of a rule in `unknown_rules` may continue: the probe cannot tell."""

    incidents: tuple[Incident, ...]
    unknown_rules: frozenset[str]
    history: ProbeHistory


def evaluate(result: ProbeResult, history: ProbeHistory, settings: WatchdogSettings) -> ProbeVerdict:
    """Return the incidents as of `result`, and the history for the next probe."""
    unreachable = {
        name: history.unreachable_since.get(name, result.at)
        for name, error in (("application", result.application_error), ("dagster", result.dagster_error))
        if error is not None
    }
    are_heartbeats_late = (
        history.are_heartbeats_late if result.dagster is None else _are_heartbeats_late(result.dagster, result.at)
    )
    has_recovered = set(history.unreachable_since) - set(unreachable) or (
        history.are_heartbeats_late and not are_heartbeats_late
    )
    recovered_at = result.at if has_recovered else history.recovered_at
    incidents = [
        Incident(
            DATABASE_DOWN,
            name,
            Severity.CRITICAL,
            f"{_database_error(result, name)} Unreachable since {since:%H:%M:%S} UTC. "
            "Check that PostgreSQL is running and accepts connections; no job runs without it.",
            since,
        )
        for name, since in unreachable.items()
        if result.at - since >= timedelta(seconds=settings.database_seconds)
    ]
    unknown = set()
    if unreachable or are_heartbeats_late:
        unknown.add(TICKS_STOPPED)
    if result.dagster is None:
        unknown.add(DAEMON_SILENT)
    else:
        silent = _check_daemon(result.dagster, result.at, history.watching_since, recovered_at, settings)
        if silent is not None:
            incidents.append(silent)
            unknown.add(TICKS_STOPPED)
        if TICKS_STOPPED not in unknown:
            incidents += _check_ticks(result.dagster.ticks, result.at, recovered_at, settings)
    return ProbeVerdict(
        tuple(incidents),
        frozenset(unknown),
        ProbeHistory(history.watching_since, unreachable, are_heartbeats_late, recovered_at),
    )


def _database_error(result: ProbeResult, name: str) -> str:
    return (result.application_error if name == "application" else result.dagster_error) or ""


def _check_daemon(
    facts: DagsterFacts,
    now: datetime,
    watching_since: datetime,
    recovered_at: datetime | None,
    settings: WatchdogSettings,
) -> Incident | None:
    limit = timedelta(seconds=settings.heartbeat_seconds)
    newest = max(facts.heartbeats.values(), default=None)
    if newest is None:
        if now - watching_since < limit:
            return None
        problem, since = "Dagster's daemon has never sent a heartbeat to this database", watching_since
    elif now - _later(newest, recovered_at) >= limit:
        problem, since = f"Dagster's daemon has sent no heartbeat since {newest:%Y-%m-%d %H:%M:%S} UTC", newest
    else:
        hanging = {
            daemon: heartbeat
            for daemon, heartbeat in facts.heartbeats.items()
            if now - _later(heartbeat, recovered_at) >= limit + SCHEDULER_INTERVAL
        }
        if not hanging:
            return None
        problem = f"Dagster's daemon is running, but there is no heartbeat from {' and '.join(sorted(hanging))}"
        since = min(hanging.values())
    return Incident(
        DAEMON_SILENT,
        "daemon",
        Severity.CRITICAL,
        f"{problem}. Schedules, sensors and queued runs may have stopped. Check whether `seedtrust-ops worker` is "
        "running and what it logged last, and restart it. Queued batches are then sent automatically.",
        since,
    )


def _are_heartbeats_late(facts: DagsterFacts, now: datetime) -> bool:
    return now - max(facts.heartbeats.values(), default=datetime.min.replace(tzinfo=UTC)) >= HEARTBEAT_LATE


def _later(moment: datetime, other: datetime | None) -> datetime:
    return moment if other is None else max(moment, other)


def _check_ticks(
    ticks: tuple[AutomationTicks, ...], now: datetime, recovered_at: datetime | None, settings: WatchdogSettings
) -> Iterator[Incident]:
    if recovered_at is not None and now - recovered_at < SCHEDULER_INTERVAL + timedelta(seconds=settings.grace_seconds):
        return
    for one in ticks:
        if one.silent_at is None or now < one.silent_at:
            continue
        since = one.last_good_at or one.on_since or one.silent_at
        newest = f"its last tick is {one.last_tick_status}" if one.last_tick_status else "it has never ticked"
        yield Incident(
            TICKS_STOPPED,
            one.name,
            Severity.HIGH,
            f"{one.name} has had no successful tick since {since:%Y-%m-%d %H:%M:%S} UTC; it should tick every "
            f"{format_duration(one.interval_seconds)}, and {newest}. Check its ticks in the Dagster UI. If the last "
            "one hangs, restart the worker.",
            since,
        )
