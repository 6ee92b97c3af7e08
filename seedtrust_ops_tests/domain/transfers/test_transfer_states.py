"""docs/transfer-states.md: every cell of its tables is what really becomes of a transfer."""

from functools import cache
from pathlib import Path

import pytest

import seedtrust_ops
from seedtrust_ops.domain.health import batches, ledger
from seedtrust_ops_tests.domain.transfers.state_scenarios import STATES, outcomes
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.tiers import long_version
from seedtrust_ops_tests.test_runbook import parse_tables

PAGE = Path(seedtrust_ops.__file__).parents[1] / "docs" / "transfer-states.md"
FIRST_COLUMN = "A person"
BETWEEN_ACTS = "<br>"
CASES = [(state, word) for state in STATES for word in STATES[state].words]
QUICK = [
    ("About to be sent by a run", "completes what is sent"),
    ("Sent, no answer", "does not know it"),
    ("Accepted", "completes it"),
]


@cache
def read_page() -> dict[tuple[str, str], dict[str, str]]:
    """Return the outcome by act, for each state of a transfer and each answer of the bank."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        state = section.splitlines()[0]
        for table in parse_tables(section)[0]:
            if table.header[0] != FIRST_COLUMN:
                continue
            for column, word in enumerate(table.header[1:], start=1):
                outcome_of = cells.setdefault((state, word.removeprefix("the bank ")), {})
                for row in table.rows:
                    for act in row[0].split(BETWEEN_ACTS):
                        assert act not in outcome_of, f"{act} is in two rows of {state}"
                        outcome_of[act] = row[column]
    return cells


def test_page_has_every_state_answer_and_act() -> None:
    page = read_page()
    assert set(page) == set(CASES)
    for state, word in CASES:
        assert set(page[state, word]) == set(STATES[state].acts), (state, word)


def compare(worker: Worker, state: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (batches, ledger):
        monkeypatch.setattr(module, "MAX_SEPARATE_FINDINGS", 1_000)
    found = outcomes(worker, STATES[state], word)
    page = read_page()[state, word]
    wrong = [f"{act}: {found[act]}  (the page says: {page[act]})" for act in found if found[act] != page[act]]
    assert not wrong, f"{PAGE.name}, '{state}', the bank {word}:\n" + "\n".join(wrong)


@pytest.mark.parametrize(("state", "word"), QUICK)
def test_transfer_becomes_what_the_page_says(
    worker: Worker, state: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(worker, state, word, monkeypatch)


@long_version(of="domain/transfers/test_transfer_states.py::test_transfer_becomes_what_the_page_says")
@pytest.mark.parametrize(("state", "word"), [case for case in CASES if case not in QUICK])
def test_every_transfer_becomes_what_the_page_says(
    worker: Worker, state: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(worker, state, word, monkeypatch)
