"""PostgreSQL advisory locks share one number space per database, so two subjects with one number block each other."""

import re
from collections import Counter
from pathlib import Path

import seedtrust_ops

LOCK = re.compile(r"^\w*LOCK\w* = ([\d_]+)$", re.MULTILINE)


def test_advisory_lock_numbers_are_unique() -> None:
    package = Path(seedtrust_ops.__file__).parent
    numbers = Counter(int(number) for file in package.rglob("*.py") for number in LOCK.findall(file.read_text()))
    assert len(numbers) >= 4
    assert [number for number, uses in numbers.items() if uses > 1] == []
