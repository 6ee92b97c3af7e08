"""Tells people of trouble that began and trouble that is over, by every way that is configured, each until it worked.

The ways are the watchdog's own: none of them needs a database or Dagster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.watchdog.state_file import Memory, Told


class NotTold(Exception):
    """Nobody was reached on this way; the text says why. It is tried again at the next look."""


@dataclass(frozen=True)
class News:
    """What one channel has not heard yet, and all that lasts; an `over` may be news in `begun` too."""

    begun: Sequence[Told]
    over: Sequence[Told]
    lasting: Sequence[Told]


class Channel(Protocol):
    """One way to reach people."""

    @property
    def name(self) -> str:
        """What is remembered of it."""

    def tell(self, news: News) -> None:
        """Tell all of it at once; raises NotTold or an SeedTrustError where that did not work."""


def tell(memory: Memory, channels: Sequence[Channel]) -> tuple[Memory, list[str]]:
    """Tell each channel what it has not heard; return what to remember, and a sentence for each that failed.

    What is over and known to be so everywhere is forgotten.
    """
    told: Mapping[tuple[str, str], Told] = memory.told
    failures = []
    for channel in channels:
        begun = [one for one in told.values() if channel.name not in one.of_beginning]
        over = [one for one in told.values() if one.over_at is not None and channel.name not in one.of_end]
        if not begun and not over:
            continue
        try:
            channel.tell(News(begun, over, [one for one in told.values() if one.over_at is None]))
        except (NotTold, SeedTrustError) as trouble:
            failures.append(f"{channel.name}: {trouble} It is tried again at the next look.")
            continue
        told = {key: _heard(one, channel.name) for key, one in told.items()}
    everywhere = {channel.name for channel in channels}
    lasting = {key: one for key, one in told.items() if one.over_at is None or not everywhere <= one.of_end}
    return Memory(memory.past, lasting), failures


def _heard(one: Told, channel: str) -> Told:
    return replace(
        one,
        of_beginning=one.of_beginning | {channel},
        of_end=one.of_end | {channel} if one.over_at is not None else one.of_end,
    )
