"""What the watchdog knows from before: trouble that it told of and the looks behind it, in a small file of its own.

A file and not the database, because the database may be what is down. One that can't be read is as none.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from seedtrust_ops.severity import Severity
from seedtrust_ops.watchdog.evaluator import Past, ProbeVerdict, Trouble

FILE = "state.json"


@dataclass(frozen=True)
class Told:
    """One trouble and who was told of it: the channels that know of its beginning, and those that know of its end.

    `over_at` is None while it lasts.
    """

    trouble: Trouble
    over_at: datetime | None = None
    of_beginning: frozenset[str] = frozenset()
    of_end: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Memory:
    """All of it, by the trouble's rule and subject."""

    past: Past
    told: Mapping[tuple[str, str], Told] = field(default_factory=dict)


def follow(memory: Memory, judgement: ProbeVerdict, now: datetime) -> Memory:
    """Return the memory with what is new begun, what is over ended, and what nobody can tell left as it was."""
    told = dict(memory.told)
    found = {trouble.key: trouble for trouble in judgement.troubles}
    for key, trouble in found.items():
        before = told.get(key)
        if before is None:
            told[key] = Told(trouble)
        elif before.over_at is not None:
            # Back again before everybody knew that it was over: whoever does not know yet need not be told.
            told[key] = Told(trouble, of_beginning=before.of_beginning - before.of_end)
    for key, one in memory.told.items():
        if key not in found and one.over_at is None and one.trouble.rule not in judgement.unknown:
            told[key] = replace(one, over_at=now)
    return Memory(judgement.past, told)


def read(folder: Path) -> Memory | None:
    """Return what `folder` holds of before, None where there is nothing to be read."""
    try:
        stored = json.loads((folder / FILE).read_text())
        past = stored["past"]
        return Memory(
            Past(
                datetime.fromisoformat(past["watching_since"]),
                {name: datetime.fromisoformat(since) for name, since in past["unreached_since"].items()},
                past["beats_late"],
                _moment(past["recovered_at"]),
            ),
            {one.trouble.key: one for one in map(_told, stored["told"])},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(folder: Path, memory: Memory) -> None:
    """Keep `memory` in `folder`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    past = memory.past
    stored = {
        "past": {
            "watching_since": past.watching_since.isoformat(),
            "unreached_since": {name: since.isoformat() for name, since in past.unreached_since.items()},
            "beats_late": past.beats_late,
            "recovered_at": past.recovered_at.isoformat() if past.recovered_at else None,
        },
        "told": [
            {
                "rule": one.trouble.rule,
                "subject": one.trouble.subject,
                "severity": one.trouble.severity.value,
                "detail": one.trouble.detail,
                "since": one.trouble.since.isoformat(),
                "over_at": one.over_at.isoformat() if one.over_at else None,
                "of_beginning": sorted(one.of_beginning),
                "of_end": sorted(one.of_end),
            }
            for one in memory.told.values()
        ],
    }
    fresh = folder / f"{FILE}.new"
    fresh.write_text(json.dumps(stored, indent=1))
    os.replace(fresh, folder / FILE)


def _told(stored: dict[str, Any]) -> Told:
    return Told(
        Trouble(
            stored["rule"],
            stored["subject"],
            Severity(stored["severity"]),
            stored["detail"],
            datetime.fromisoformat(stored["since"]),
        ),
        _moment(stored["over_at"]),
        frozenset(stored["of_beginning"]),
        frozenset(stored["of_end"]),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
