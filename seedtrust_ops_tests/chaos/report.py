"""Keeps the table of faults in `docs/safety.md`, with the date and the seed; what people wrote around it stays.

Only what is between the two marks is written anew.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from seedtrust_ops_tests.chaos.mutations import Verdict
from seedtrust_ops_tests.chaos.table import Row, as_markdown

PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
BEGIN, END = "<!-- made by `make chaos`: begin -->", "<!-- made by `make chaos`: end -->"
SHOWN = 2


def keep(rows: Sequence[Row], verdicts: Sequence[Verdict], *, made_at: datetime, seed: int, seconds: float) -> None:
    """Write the table and the mutation check into the page, between its marks."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    made = (
        f"Made by `make chaos` on {made_at:%Y-%m-%d at %H:%M} UTC with seed {seed}, in {seconds / 60:.0f} minutes.\n\n"
        f"{as_markdown(rows)}\n\n"
        "The product broken on purpose, one break at a time, in a copy:\n\n"
        f"{_mutations(verdicts)}"
    )
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


def _mutations(verdicts: Sequence[Verdict]) -> str:
    lines = ["| break | caught in | the first thing that the checker said |", "| --- | ---: | --- |"]
    for verdict in verdicts:
        first = next((found[0] for found in verdict.caught_by.values()), "nothing")
        lines.append(f"| {verdict.mutation} | {len(verdict.caught_by)} of {len(verdict.cases)} cases | {first} |")
    return "\n".join(lines)
