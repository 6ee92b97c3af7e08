"""Dates and times that PostgreSQL stores and Python cannot represent: `infinity`, years before 2, years after 9998.

Browsers accept the year 20260, so people type such values. They are loaded as a date or time at the end of Python's
range that shows what PostgreSQL stores, so that no row can stop a job, whatever it selects.
See docs/decisions/extreme-times.md.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Self

import psycopg
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.pq import Format

_EDGES = (1, 9999)
"""Years in which a shift to another time zone, or by some days, may leave Python's range."""

_EXTREME = re.compile(r"-?infinity|.* BC|(0001|9999|[0-9]{5,})-.*")


class ExtremeTime(datetime):
    """A time beyond Python's range: it sorts before or after every other time, and shows as `text`.

    It stays what it is in arithmetic and in every time zone.
    """

    text: str

    @classmethod
    def of(cls, text: str, zone: tzinfo | None) -> Self:
        """Return the time that PostgreSQL writes as `text`; `zone` is UTC for a timestamptz and else None."""
        edge = date.min if _is_early(text) else date.max
        time = cls(edge.year, edge.month, edge.day, tzinfo=zone)
        time.text = text
        return time

    def __str__(self) -> str:
        return self.text

    def __format__(self, _format: str) -> str:
        return self.text

    def isoformat(self, _sep: str = "T", _timespec: str = "auto") -> str:
        """Return `text`."""
        return self.text

    def strftime(self, _format: str) -> str:
        """Return `text`."""
        return self.text

    def date(self) -> "ExtremeDate":
        """Return the day, which is as extreme."""
        return ExtremeDate.of(self.text)

    def replace(self, *_parts: object, **parts: Any) -> Self:
        """Return the same time, with another zone if `parts` has one."""
        return self.of(self.text, parts.get("tzinfo", self.tzinfo))

    def astimezone(self, _zone: tzinfo | None = None) -> Self:
        """Return the same time."""
        return self

    def __add__(self, _other: timedelta) -> Self:
        return self

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self if isinstance(other, timedelta) else super().__sub__(other)

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return type(self).of, (self.text, self.tzinfo)


class ExtremeDate(date):
    """A date beyond Python's range, like `ExtremeTime`."""

    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the date that PostgreSQL writes as `text`."""
        edge = date.min if _is_early(text) else date.max
        day = cls(edge.year, edge.month, edge.day)
        day.text = text
        return day

    def __str__(self) -> str:
        return self.text

    def __format__(self, _format: str) -> str:
        return self.text

    def isoformat(self) -> str:
        """Return `text`."""
        return self.text

    def strftime(self, _format: str) -> str:
        """Return `text`."""
        return self.text

    def replace(self, *_parts: object, **_named_parts: object) -> Self:
        """Return the same date."""
        return self

    def __add__(self, _other: timedelta) -> Self:
        return self

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self if isinstance(other, timedelta) else super().__sub__(other)

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return type(self).of, (self.text,)


def is_extreme(text: str) -> bool:
    """Return whether PostgreSQL writes a date or time beyond Python's range as `text`, also in JSON."""
    return bool(_EXTREME.fullmatch(text))


def _is_early(text: str) -> bool:
    return text.startswith(("-", "0001-")) or text.endswith(" BC")


def register_adapters(adapters: AdaptersMap) -> None:
    """Let a connection load every date and time, those of queries without ORM columns included, and write them back."""
    for name, loader in _LOADERS.items():
        adapters.register_loader(name, loader)
    for one in (ExtremeTime, ExtremeDate):
        adapters.register_dumper(one, _TextDumper)


class _TextDumper(Dumper):
    def dump(self, obj: ExtremeTime | ExtremeDate) -> bytes:
        return obj.text.encode()


def _loader(name: str) -> type[Loader]:
    """Return a loader that asks psycopg's own first, which is many times faster than one in Python."""
    own = psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, Format.TEXT)
    assert own is not None, f"psycopg loads {name}"
    load_own: Callable[[int, Any], Any] = own

    class SafeLoader(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._load = load_own(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                value = self._load(data)
                if value.year not in _EDGES:
                    return value
            except psycopg.DataError:
                pass
            text = bytes(data).decode()
            if name == "date":
                return ExtremeDate.of(text)
            return ExtremeTime.of(text, UTC if name == "timestamptz" else None)

    return SafeLoader


_LOADERS = {name: _loader(name) for name in ("date", "timestamp", "timestamptz")}
