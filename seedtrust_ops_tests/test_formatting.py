"""Money, durations and counts are formatted exactly and for people."""

import pytest

from seedtrust_ops.formatting import format_dollars, format_duration, format_short_duration, pluralize


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


@pytest.mark.parametrize(
    ("seconds", "in_sentences", "in_tables"),
    [
        (1, "1 second", "1s"),
        (45.9, "45 seconds", "45s"),
        (119, "119 seconds", "119s"),
        (120, "2 minutes", "2m"),
        (7_199, "119 minutes", "119m"),
        (7_200, "2 hours", "2h"),
        (172_800, "2 days", "2d"),
    ],
)
def test_duration_is_in_the_largest_unit_that_gives_two(seconds: float, in_sentences: str, in_tables: str) -> None:
    assert (format_duration(seconds), format_short_duration(seconds)) == (in_sentences, in_tables)
