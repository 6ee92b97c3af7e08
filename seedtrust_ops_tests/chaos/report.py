"""Writes the results table into `docs/safety.md`, with the date and the seed.

Only the text between the two marks is replaced; the prose around it is written by people and stays.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from seedtrust_ops_tests.chaos.mutations import MutationResult
from seedtrust_ops_tests.chaos.results_table import Row, parse_row, to_markdown

PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
BEGIN, END = "<!-- made by `make chaos`: begin -->", "<!-- made by `make chaos`: end -->"


def write_report(
    rows: Sequence[Row], mutations: Sequence[MutationResult], *, started_at: datetime, seed: int, seconds: float
) -> None:
    """Write the results of a complete run between the page's marks."""
    _write(
        f"Made by `make chaos` on {started_at:%Y-%m-%d at %H:%M} UTC with seed {seed}, in {seconds / 60:.0f} minutes."
        "\n\n"
        f"{to_markdown(rows)}\n\n"
        "Mutation testing: deliberate bugs, one at a time, in a copy of the product:\n\n"
        f"{_mutation_table(mutations)}"
    )


def update_report(rows: Sequence[Row], mutations: Sequence[MutationResult], *, started_at: datetime, seed: int) -> None:
    """Replace the results of one part that ran again, found by the rows' scenario names, and add a line about it."""
    report = _read()
    new_rows = {row.scenario: row for row in rows}
    if new_rows:
        table = _find_table(report, "| scenario")
        # Without the two header lines and the total, which is computed again.
        old_rows = {row.scenario: row for row in map(parse_row, table.splitlines()[2:-1])}
        report = report.replace(table, to_markdown((old_rows | new_rows).values()))
    if mutations:
        report = report.replace(_find_table(report, "| mutation"), _mutation_table(mutations))
    what = "; ".join(new_rows) or "the mutations"
    _write(f"{report}\n\nRun again on {started_at:%Y-%m-%d at %H:%M} UTC with seed {seed}: {what}.")


def _find_table(report: str, header: str) -> str:
    return report[report.index(header) :].split("\n\n")[0]


def _read() -> str:
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


def _write(report: str) -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{rest.split(END)[1]}")


def _mutation_table(mutations: Sequence[MutationResult]) -> str:
    lines = ["| mutation | detected in | first violation |", "| --- | ---: | --- |"]
    for result in mutations:
        first = next((violations[0] for violations in result.detected_by.values()), "none")
        lines.append(f"| {result.mutation} | {len(result.detected_by)} of {len(result.cases)} cases | {first} |")
    return "\n".join(lines)
