"""Notifies every configured channel of incidents that opened or were resolved, and retries each until it succeeds.

The channels themselves are in `channels`; none of them needs a database or Dagster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.watchdog.state_file import NotifiedIncident, WatchdogState


class NotificationFailed(Exception):
    """A channel notified nobody; the message says why. The next round tries again."""


@dataclass(frozen=True)
class Changes:
    """What one channel must still notify, and all ongoing incidents.

    An incident that was resolved before the channel reported it is in both `opened` and `resolved`.
    """

    opened: Sequence[NotifiedIncident]
    resolved: Sequence[NotifiedIncident]
    ongoing: Sequence[NotifiedIncident]


class Channel(Protocol):
    """One way to notify people."""

    @property
    def name(self) -> str:
        """The channel's name in the state file and in log lines."""

    def notify(self, changes: Changes) -> None:
        """Notify people of all changes.

        Raises:
            NotificationFailed, SeedTrustError: if nobody was notified.
        """


def notify_channels(state: WatchdogState, channels: Sequence[Channel]) -> tuple[WatchdogState, list[str]]:
    """Notify each channel of its pending changes; return the new state, and a message for each channel that failed.

    Incidents that are resolved and whose resolution every channel has reported are removed from the state.
    """
    incidents: Mapping[tuple[str, str], NotifiedIncident] = state.incidents
    failures = []
    for channel in channels:
        opened = [one for one in incidents.values() if channel.name not in one.opening_notified]
        resolved = [
            one
            for one in incidents.values()
            if one.resolved_at is not None and channel.name not in one.resolution_notified
        ]
        if not opened and not resolved:
            continue
        try:
            channel.notify(Changes(opened, resolved, [one for one in incidents.values() if one.resolved_at is None]))
        except (NotificationFailed, SeedTrustError) as error:
            failures.append(f"Channel {channel.name} failed and will be retried in the next round: {error}")
            continue
        incidents = {key: _mark_notified(one, channel.name) for key, one in incidents.items()}
    all_channels = {channel.name for channel in channels}
    pending = {
        key: one
        for key, one in incidents.items()
        if one.resolved_at is None or not all_channels <= one.resolution_notified
    }
    return WatchdogState(state.history, pending), failures


def _mark_notified(one: NotifiedIncident, channel: str) -> NotifiedIncident:
    return replace(
        one,
        opening_notified=one.opening_notified | {channel},
        resolution_notified=(
            one.resolution_notified | {channel} if one.resolved_at is not None else one.resolution_notified
        ),
    )
