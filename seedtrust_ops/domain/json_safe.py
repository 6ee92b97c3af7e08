"""Makes any value one that PostgreSQL's jsonb takes, and keeps it small: one odd value must not stop a whole page.

What the value means is the caller's; nothing is ever read back from it into the kind that it had.
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, is_dataclass
from math import isfinite
from typing import Any

LARGEST_BYTES = 64 * 1024
SHOWN_CHARACTERS = 1000
DEEPEST = 20
"""Deeper than this a value is written as text: what nests without an end must end somewhere."""


def storable(value: Any, *, deepest: int = DEEPEST) -> Any:
    """Return `value` as JSON has it: what JSON can't say is text, and so is what lies deeper than `deepest` levels."""
    if value is None or isinstance(value, bool | int):
        # An enum of integers is one too, and says its number.
        return value if value is None or isinstance(value, bool) else int(value)
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if deepest > 0:
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            return {storable_text(name): storable(one, deepest=deepest - 1) for name, one in value.items()}
        if isinstance(value, AbstractSet):
            return [storable(one, deepest=deepest - 1) for one in sorted(value, key=str)]
        if isinstance(value, list | tuple):
            return [storable(one, deepest=deepest - 1) for one in value]
    return storable_text(value)


def storable_text(value: object) -> str:
    """Return `value` as text that PostgreSQL takes: without NUL and without halves of surrogate pairs."""
    text = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", errors="replace").decode("utf-8")


def bounded(value: Any, *, largest_bytes: int = LARGEST_BYTES) -> Any:
    """Return a storable value, or, where its JSON is larger than `largest_bytes`, how large it is and its beginning."""
    written = json.dumps(value)
    if len(written) <= largest_bytes:
        return value
    return {"too_large_bytes": len(written), "begins_with": written[:SHOWN_CHARACTERS]}
