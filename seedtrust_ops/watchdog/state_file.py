"""The watchdog's state between rounds and restarts: the probe history, and when which channel reported which incident.

It is a file, because the database may be down. An unreadable file counts as missing.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.evaluator import Incident, ProbeHistory, ProbeVerdict

STATE_FILE = "state.json"


@dataclass(frozen=True)
class NotifiedIncident:
    """An incident, and when each channel, by name, has reported its opening and its resolution (UTC).

    `resolved_at` is None while the incident is ongoing.
    """

    incident: Incident
    resolved_at: datetime | None = None
    opening_notified: Mapping[str, datetime] = field(default_factory=dict)
    resolution_notified: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class WatchdogState:
    """The whole state; incidents are by rule and subject."""

    history: ProbeHistory
    incidents: Mapping[tuple[str, str], NotifiedIncident] = field(default_factory=dict)


def update_state(state: WatchdogState, verdict: ProbeVerdict, now: datetime) -> WatchdogState:
    """Return the state with new incidents opened, absent ones resolved, and those of unknown rules unchanged."""
    incidents = dict(state.incidents)
    current = {incident.key: incident for incident in verdict.incidents}
    for key, incident in current.items():
        before = incidents.get(key)
        if before is None:
            incidents[key] = NotifiedIncident(incident)
        elif before.resolved_at is not None:
            # It came back before every channel had reported its resolution. The channels that had not need no message.
            unaware = before.opening_notified.keys() - before.resolution_notified
            incidents[key] = NotifiedIncident(
                incident, opening_notified={channel: before.opening_notified[channel] for channel in unaware}
            )
    for key, one in state.incidents.items():
        if key not in current and one.resolved_at is None and one.incident.rule not in verdict.unknown_rules:
            incidents[key] = replace(one, resolved_at=now)
    return WatchdogState(verdict.history, incidents)


def read_state(folder: Path) -> WatchdogState | None:
    """Return the state from `folder`, or None if it is missing or unreadable."""
    try:
        stored = json.loads((folder / STATE_FILE).read_text())
        history = stored["history"]
        return WatchdogState(
            ProbeHistory(
                datetime.fromisoformat(history["watching_since"]),
                {name: datetime.fromisoformat(since) for name, since in history["unreachable_since"].items()},
                history["are_heartbeats_late"],
                _parse_time(history["recovered_at"]),
            ),
            {one.incident.key: one for one in map(_parse_incident, stored["incidents"])},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(folder: Path, state: WatchdogState) -> None:
    """Write the state to `folder` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    history = state.history
    stored = {
        "history": {
            "watching_since": history.watching_since.isoformat(),
            "unreachable_since": {name: since.isoformat() for name, since in history.unreachable_since.items()},
            "are_heartbeats_late": history.are_heartbeats_late,
            "recovered_at": history.recovered_at.isoformat() if history.recovered_at else None,
        },
        "incidents": [
            {
                "rule": one.incident.rule,
                "subject": one.incident.subject,
                "severity": one.incident.severity.value,
                "detail": one.incident.detail,
                "since": one.incident.since.isoformat(),
                "resolved_at": one.resolved_at.isoformat() if one.resolved_at else None,
                "opening_notified": _times_to_json(one.opening_notified),
                "resolution_notified": _times_to_json(one.resolution_notified),
            }
            for one in state.incidents.values()
        ],
    }
    new_file = folder / f"{STATE_FILE}.new"
    new_file.write_text(json.dumps(stored, indent=1))
    os.replace(new_file, folder / STATE_FILE)


def _parse_incident(stored: dict[str, Any]) -> NotifiedIncident:
    return NotifiedIncident(
        Incident(
            stored["rule"],
            stored["subject"],
            Severity(stored["severity"]),
            stored["detail"],
            datetime.fromisoformat(stored["since"]),
        ),
        _parse_time(stored["resolved_at"]),
        _parse_times(stored["opening_notified"]),
        _parse_times(stored["resolution_notified"]),
    )


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _times_to_json(times: Mapping[str, datetime]) -> dict[str, str]:
    return {channel: at.isoformat() for channel, at in times.items()}


def _parse_times(stored: Mapping[str, str]) -> dict[str, datetime]:
    return {channel: datetime.fromisoformat(at) for channel, at in stored.items()}
