"""Keeps the table of faults in `docs/safety.md`, with the date and the seed; what people wrote around it stays.

Only what is between the two marks is written anew.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from seedtrust_ops_tests.chaos.mutations import Verdict
from seedtrust_ops_tests.chaos.results_table import Row, as_markdown, from_markdown

PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
BEGIN, END = "<!-- made by `make chaos`: begin -->", "<!-- made by `make chaos`: end -->"


def keep(rows: Sequence[Row], verdicts: Sequence[Verdict], *, made_at: datetime, seed: int, seconds: float) -> None:
    """Write the table and the mutation check into the page, between its marks."""
    _write(
        f"Made by `make chaos` on {made_at:%Y-%m-%d at %H:%M} UTC with seed {seed}, in {seconds / 60:.0f} minutes.\n\n"
        f"{as_markdown(rows)}\n\n"
        "The product broken on purpose, one break at a time, in a copy:\n\n"
        f"{_mutations(verdicts)}"
    )


def keep_again(rows: Sequence[Row], verdicts: Sequence[Verdict], *, made_at: datetime, seed: int) -> None:
    """Put what one part that was run again came to in the place of what it came to before, and say so."""
    made = _made()
    again = {row.fault: row for row in rows}
    if again:
        kept = _table(made, "| fault")
        # Neither the head nor the sum, which is made anew.
        before = {row.fault: row for row in map(from_markdown, kept.splitlines()[2:-1])}
        made = made.replace(kept, as_markdown((before | again).values()))
    if verdicts:
        made = made.replace(_table(made, "| break"), _mutations(verdicts))
    what = "; ".join(again) or "the mutation check"
    _write(f"{made}\n\nRun again on {made_at:%Y-%m-%d at %H:%M} UTC with seed {seed}: {what}.")


def _table(made: str, head: str) -> str:
    return made[made.index(head) :].split("\n\n")[0]


def _made() -> str:
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


def _write(made: str) -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}")


def _mutations(verdicts: Sequence[Verdict]) -> str:
    lines = ["| break | caught in | the first thing that the checker said |", "| --- | ---: | --- |"]
    for verdict in verdicts:
        first = next((found[0] for found in verdict.caught_by.values()), "nothing")
        lines.append(f"| {verdict.mutation} | {len(verdict.caught_by)} of {len(verdict.cases)} cases | {first} |")
    return "\n".join(lines)
