"""Return values and arguments of jobs become plain JSON of limited size that PostgreSQL accepts."""

import json
import math
from dataclasses import dataclass
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedtrust_ops.domain.json_safe import MAX_BYTES, MAX_DEPTH, limit_size, to_json_safe


@dataclass(frozen=True)
class Counted:
    day: date
    rows: tuple[int, ...]


class Level(IntEnum):
    HIGH = 3


class Color(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (math.inf, "inf"),
        (Level.HIGH, 3),
        (Color.RED, "red"),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("half of a pair: \ud83d", "half of a pair: ?"),
        ({1: {"x", "b"}}, {"1": ["b", "x"]}),
        (Counted(date(2026, 1, 4), (1, 2)), {"day": "2026-01-04", "rows": [1, 2]}),
    ],
)
def test_odd_values_are_converted_to_json(value: Any, expected: Any) -> None:
    assert to_json_safe(value) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_conversion_yields_json_and_is_idempotent(value: Any) -> None:
    converted = to_json_safe(value)
    assert json.loads(json.dumps(converted, allow_nan=False)) == converted
    assert to_json_safe(converted) == converted
    assert "\\u0000" not in json.dumps(converted)


def test_endless_nesting_and_large_values_are_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert json.dumps(to_json_safe(endless)).count("[") <= MAX_DEPTH + 5
    large = limit_size("x" * MAX_BYTES)
    assert large["too_large_bytes"] == MAX_BYTES + 2
    assert len(json.dumps(large)) < MAX_BYTES
    assert limit_size([1]) == [1]
