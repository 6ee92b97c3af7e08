"""Whatever a job returns or is given becomes plain JSON of a bounded size that PostgreSQL takes."""

import json
import math
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedtrust_ops.domain.json_safe import DEEPEST, LARGEST_BYTES, bounded, storable


@dataclass(frozen=True)
class Counted:
    day: date
    rows: tuple[int, ...]


class Level(IntEnum):
    HIGH = 3


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (math.inf, "inf"),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("half of a pair: \ud83d", "half of a pair: ?"),
        ({1: {"x", "b"}}, {"1": ["b", "x"]}),
        (Counted(date(2026, 1, 4), (1, 2)), {"day": "2026-01-04", "rows": [1, 2]}),
    ],
)
def test_odd_values_are_kept_as_json_has_them(value: Any, kept: Any) -> None:
    assert storable(value) == kept


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_any_value_is_json_and_the_same_when_it_is_made_so_again(value: Any) -> None:
    kept = storable(value)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert storable(kept) == kept
    assert "\\u0000" not in json.dumps(kept)


def test_what_nests_without_an_end_and_what_is_too_large_ends_somewhere() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert json.dumps(storable(endless)).count("[") <= DEEPEST + 5
    large = bounded("x" * LARGEST_BYTES)
    assert large["too_large_bytes"] == LARGEST_BYTES + 2
    assert len(json.dumps(large)) < LARGEST_BYTES
    assert bounded([1]) == [1]
