"""The results table: one row per scenario, printed on the terminal and kept in `docs/safety.md`.

What counts as a double or lost payment is decided in `violations`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

COLUMNS = (
    "scenario",
    "cases run",
    "double payments",
    "lost payments",
    "unexplained",
    "transfers without a row",
    "nobody knows",
)


@dataclass(frozen=True)
class Row:
    """One scenario: how many distinct cases ran, and how many violations of each kind were found in them.

    `double`: money moved twice for one transaction. `lost`: a payment that the bank made or should have made and that
    no person will learn of. `without_row`: a transfer at the bank that no row explains. `unnotified`: something that a
    person must act on, and that nobody was notified of. `unexplained`: any other difference from the promises
    (docs/rules.md, section 4).
    """

    scenario: str
    cases: int
    double: int = 0
    lost: int = 0
    unexplained: int = 0
    without_row: int = 0
    unnotified: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no violation was found."""
        return not any(self._violations)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `COLUMNS`."""
        return (self.scenario, *(f"{number:,}" for number in (self.cases, *self._violations)))

    @property
    def _violations(self) -> tuple[int, ...]:
        return (self.double, self.lost, self.unexplained, self.without_row, self.unnotified)


def sum_rows(rows: Iterable[Row]) -> Row:
    """Return the sum of the rows."""
    listed = list(rows)
    return Row(
        "total",
        cases=sum(row.cases for row in listed),
        double=sum(row.double for row in listed),
        lost=sum(row.lost for row in listed),
        unexplained=sum(row.unexplained for row in listed),
        without_row=sum(row.without_row for row in listed),
        unnotified=sum(row.unnotified for row in listed),
    )


def to_rich_table(rows: Iterable[Row], title: str) -> Table:
    """Return the rows and their sum as a table for the terminal."""
    listed = list(rows)
    table = Table(title=title, show_footer=False)
    table.add_column(COLUMNS[0])
    for name in COLUMNS[1:]:
        table.add_column(name, justify="right")
    for row in listed:
        table.add_row(*row.cells, style=None if row.is_clean else "red")
    table.add_section()
    table.add_row(*sum_rows(listed).cells, style="bold")
    return table


def to_markdown(rows: Iterable[Row]) -> str:
    """Return the rows and their sum as a Markdown table."""
    listed = list(rows)
    lines = [
        _to_line(COLUMNS),
        _to_line(("---", *("---:" for _ in COLUMNS[1:]))),
        *(_to_line(row.cells) for row in listed),
        _to_line(f"**{cell}**" for cell in sum_rows(listed).cells),
    ]
    return "\n".join(lines)


def parse_row(line: str) -> Row:
    """Return the row that `to_markdown` wrote as `line`."""
    scenario, *numbers = (cell.strip() for cell in line.strip("| ").split(" | "))
    return Row(scenario, *(int(number.replace(",", "")) for number in numbers))


def _to_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
