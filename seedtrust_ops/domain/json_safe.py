"""Converts any value to small JSON that PostgreSQL's jsonb accepts, so that one odd value cannot fail a bulk write.

The conversion is one-way: nothing is ever converted back to its original type.
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, is_dataclass
from math import isfinite
from typing import Any

MAX_BYTES = 64 * 1024
PREVIEW_CHARACTERS = 1000
MAX_DEPTH = 20
"""Values nested deeper are written as text, which also ends a structure that contains itself."""


def to_json_safe(value: Any, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return `value` as JSON; what JSON cannot express, or is nested deeper than `max_depth`, becomes text."""
    if value is None or isinstance(value, bool | int):
        # Includes members of an IntEnum, which become their number.
        return value if value is None or isinstance(value, bool) else int(value)
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if max_depth > 0:
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            return {to_json_safe_text(name): to_json_safe(one, max_depth=max_depth - 1) for name, one in value.items()}
        if isinstance(value, AbstractSet):
            return [to_json_safe(one, max_depth=max_depth - 1) for one in sorted(value, key=str)]
        if isinstance(value, list | tuple):
            return [to_json_safe(one, max_depth=max_depth - 1) for one in value]
    return to_json_safe_text(value)


def to_json_safe_text(value: object) -> str:
    """Return `value` as text that PostgreSQL accepts, without NUL characters or lone surrogates."""
    text = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", errors="replace").decode("utf-8")


def limit_size(value: Any, *, max_bytes: int = MAX_BYTES) -> Any:
    """Return a JSON-safe value, or its size and its beginning if its JSON is larger than `max_bytes`."""
    encoded = json.dumps(value)
    if len(encoded) <= max_bytes:
        return value
    return {"too_large_bytes": len(encoded), "begins_with": encoded[:PREVIEW_CHARACTERS]}
