"""Tests of the formats of money and counts."""

import pytest

from seedtrust_ops.formatting import format_dollars, pluralize


@pytest.mark.parametrize(
    ("cents", "expected"),
    [(0, "$0.00"), (5, "$0.05"), (123_456, "$1,234.56"), (-123_456, "-$1,234.56"), (10**18 + 1, f"${10**16:,}.01")],
)
def test_dollars_are_exact_to_the_cent(cents: int, expected: str) -> None:
    assert format_dollars(cents) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1_000, "1,000 runs")])
def test_noun_agrees_with_its_count(count: int, expected: str) -> None:
    assert pluralize(count, "run") == expected


def test_irregular_plural_is_given_by_the_caller() -> None:
    assert (pluralize(1, "batch", "batches"), pluralize(2, "batch", "batches")) == ("1 batch", "2 batches")
