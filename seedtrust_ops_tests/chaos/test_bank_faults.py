"""Whatever the bank does wrong, nothing is paid twice or lost, and what people must do is said to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import seedtrust_ops
from seedtrust_ops_tests.chaos.bank_faults import BAD_DAYS, BadDay, live_through
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.model.runner import model_template, quick_bank_patience

RUNBOOK = Path(seedtrust_ops.__file__).parent.parent / "docs" / "runbook.md"


@pytest.fixture(scope="module")
def template(ground: Ground) -> Iterator[str]:
    with model_template(ground) as template, quick_bank_patience():
        yield template


@pytest.mark.takes_minutes
@pytest.mark.parametrize("day", BAD_DAYS, ids=lambda day: f"{day.fault}, {day.name}".replace(" ", "-"))
def test_bad_day_ends_with_sound_books_and_people_who_know(ground: Ground, template: str, day: BadDay) -> None:
    assert live_through(ground, template, day) == []


def test_runbook_says_what_to_do_about_each_bad_day() -> None:
    told = {day.told for day in BAD_DAYS} - {None}
    assert len(told) >= 4
    assert [rule for rule in told if f"| `{rule}` |" not in RUNBOOK.read_text()] == []
