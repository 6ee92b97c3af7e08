"""The watchdog's round (probe, evaluate, save the state, record alerts, notify), and the loop that repeats it.

See docs/decisions/watchdog.md.
"""

import fcntl
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from seedtrust_ops.config.alert_thresholds import WatchdogSettings
from seedtrust_ops.domain.alerts.channel_state import (
    IMMEDIATE_SEVERITIES,
    OPENED,
    RESOLVED,
    WATCHDOG_RULES,
    Channel,
    Delivery,
    read_deliveries,
    record_deliveries,
)
from seedtrust_ops.domain.alerts.store import Finding, RecordedIncident, sync_incidents
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Alert
from seedtrust_ops.watchdog import state_file
from seedtrust_ops.watchdog.evaluator import Incident, ProbeHistory, evaluate
from seedtrust_ops.watchdog.notifier import notify_channels, open_channels, remove_reported
from seedtrust_ops.watchdog.probes import Prober, QueryFailed
from seedtrust_ops.watchdog.state_file import NotifiedIncident, WatchdogState, update_state

STATE_FOLDER = Path(".seedtrust") / "watchdog"

Log = Callable[[str], None]
"""Prints one line of the watchdog's log."""


class WatchdogAlreadyRunning(SeedTrustError):
    """A watchdog is already running for this DAGSTER_HOME."""


class Watchdog:
    """The watchdog of one process: its prober, its channels and its state."""

    def __init__(self, folder: Path, settings: WatchdogSettings, log: Log) -> None:
        """Create it.

        Args:
            folder: where the state file is kept.
            settings: the intervals and thresholds.
            log: prints one line.
        """
        self._folder = folder
        self._settings = settings
        self._prober = Prober(grace_seconds=settings.grace_seconds)
        self._channels, problems = open_channels(self._read_worst_severity)
        self._log = log
        self._logged: set[str] = set()
        self._state = state_file.read_state(folder)
        self._log_new(problems)

    def run_once(self) -> list[NotifiedIncident]:
        """Run one round; return the ongoing incidents."""
        result = self._prober.probe()
        before = self._state or self._restore_state(result.at)
        verdict = evaluate(result, before.history, self._settings)
        state = update_state(before, verdict, result.at)
        for key, one in state.incidents.items():
            earlier = before.incidents.get(key)
            if earlier is None or (earlier.resolved_at is None) != (one.resolved_at is None):
                label = "RESOLVED" if one.resolved_at else one.incident.severity
                self._log(f"{label}: {' '.join(key)}: {one.incident.detail}")
        failures = self._save(state)
        is_database_up = result.application_error is None
        record_failures = self._record(state) if is_database_up else []
        notified, channel_failures = notify_channels(state, self._channels, result.at)
        self._save(notified)
        if is_database_up and not record_failures and notified != state:
            record_failures = self._record(notified)
        self._save(remove_reported(notified, self._channels))
        self._log_new(failures + record_failures + channel_failures)
        return [one for one in notified.incidents.values() if one.resolved_at is None]

    def _record(self, state: WatchdogState) -> list[str]:
        """Record the incidents, and which channels have reported them; return a message if that failed."""
        try:
            self._prober.application.run(lambda connection: _sync_alerts(Session(connection), state))
        except QueryFailed as error:
            return [f"Could not record incidents in ops.alerts; the next round tries again. {error}"]
        return []

    def _restore_state(self, now: datetime) -> WatchdogState:
        """Return the state if the file is lost: the open incidents of `ops.alerts`, and who has reported them."""
        try:
            incidents = self._prober.application.run(lambda connection: _read_open_incidents(Session(connection)))
        except QueryFailed:
            incidents = []
        return WatchdogState(ProbeHistory(now), {one.incident.key: one for one in incidents})

    def _save(self, state: WatchdogState) -> list[str]:
        """Save the state; return a message if that failed. A full disk must not keep people from being notified."""
        self._state = state
        try:
            state_file.write_state(self._folder, state)
        except OSError as error:
            return [f"Could not save the state, so a restart may repeat notifications; the next round retries. {error}"]
        return []

    def _read_worst_severity(self) -> Severity | None:
        try:
            severities = self._prober.application.run(_read_open_severities)
        except QueryFailed:
            return None
        return max(severities, key=lambda severity: severity.priority, default=None)

    def _log_new(self, messages: list[str]) -> None:
        """Log the messages that the previous round did not log."""
        for message in messages:
            if message not in self._logged:
                self._log(message)
        self._logged = set(messages)


def run_until_stopped(watchdog: Watchdog, stop: Event, *, interval_seconds: float, log: Log) -> None:
    """Run rounds until `stop` is set; a round that raises is logged, and the next one follows."""
    while not stop.is_set():
        try:
            watchdog.run_once()
        except Exception:  # noqa: BLE001  no error may stop the watchdog
            log(f"This round failed. The next one starts in {interval_seconds:g} s.\n{traceback.format_exc()}")
        stop.wait(interval_seconds)


@contextmanager
def hold_watchdog_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of this DAGSTER_HOME's watchdog.

    Raises:
        WatchdogAlreadyRunning: if another watchdog holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WatchdogAlreadyRunning(
                f"A watchdog is already running for {folder.parent.parent}. A second one would duplicate every alert. "
                "Stop the other one first, or leave it running."
            ) from None
        yield


def log_timestamp() -> str:
    """Return the current time in the format of the watchdog's log lines."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _sync_alerts(session: Session, state: WatchdogState) -> None:
    incidents = state.incidents.values()
    alert_ids = sync_incidents(
        session,
        WATCHDOG_RULES,
        [RecordedIncident(_finding(one.incident), one.incident.since, one.resolved_at) for one in incidents],
    )
    record_deliveries(
        session,
        [
            Delivery(alert_ids[one.incident.key], Channel(channel), notification, one.incident.severity.value, 1, at)
            for one in incidents
            for notification, times in ((OPENED, one.opening_notified), (RESOLVED, one.resolution_notified))
            for channel, at in times.items()
        ],
    )


def _finding(incident: Incident) -> Finding:
    return Finding(incident.rule, incident.subject, incident.severity, incident.detail)


def _read_open_incidents(session: Session) -> list[NotifiedIncident]:
    alerts = session.scalars(select(Alert).where(Alert.rule.in_(WATCHDOG_RULES), Alert.resolved_at.is_(None))).all()
    delivered = read_deliveries(session, [alert.id for alert in alerts])
    return [
        NotifiedIncident(
            Incident(alert.rule, alert.subject, Severity(alert.severity), alert.detail, alert.opened_at),
            opening_notified={row.channel: row.notified_at for row in delivered.get(alert.id, ())},
        )
        for alert in alerts
    ]


def _read_open_severities(connection: Connection) -> list[Severity]:
    query = (
        select(Alert.severity).where(Alert.resolved_at.is_(None), Alert.severity.in_(IMMEDIATE_SEVERITIES)).distinct()
    )
    return [Severity(severity) for severity in connection.scalars(query)]
