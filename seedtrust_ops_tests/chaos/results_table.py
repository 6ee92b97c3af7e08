"""The table of faults: what a part of the chaos suite hands in, and how it is printed and kept.

A part is a module with `run(ground, seed) -> list[Row]`; what is a double or a lost payment, the checker says.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

COLUMNS = ("fault", "cases run", "double payments", "lost payments", "unexplained")


@dataclass(frozen=True)
class Row:
    """One kind of fault: how many distinct cases of it ran, and what the checker found in them.

    `double`: money moved twice for one transaction. `lost`: a payment that the bank made or should have made and
    that nobody will learn of. `unexplained`: any other difference from what the design promises.
    """

    fault: str
    cases: int
    double: int = 0
    lost: int = 0
    unexplained: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.double or self.lost or self.unexplained)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `COLUMNS`."""
        return (self.fault, *(f"{number:,}" for number in (self.cases, self.double, self.lost, self.unexplained)))


def total(rows: Iterable[Row]) -> Row:
    """Return the sum of the rows."""
    listed = list(rows)
    return Row(
        "all",
        cases=sum(row.cases for row in listed),
        double=sum(row.double for row in listed),
        lost=sum(row.lost for row in listed),
        unexplained=sum(row.unexplained for row in listed),
    )


def as_rich(rows: Iterable[Row], title: str) -> Table:
    """Return the rows and their sum as a table for the terminal."""
    listed = list(rows)
    table = Table(title=title, show_footer=False)
    table.add_column(COLUMNS[0])
    for name in COLUMNS[1:]:
        table.add_column(name, justify="right")
    for row in listed:
        table.add_row(*row.cells, style=None if row.is_clean else "red")
    table.add_section()
    table.add_row(*total(listed).cells, style="bold")
    return table


def as_markdown(rows: Iterable[Row]) -> str:
    """Return the rows and their sum as a table in Markdown."""
    listed = list(rows)
    lines = [
        _line(COLUMNS),
        _line(("---", *("---:" for _ in COLUMNS[1:]))),
        *(_line(row.cells) for row in listed),
        _line(f"**{cell}**" for cell in total(listed).cells),
    ]
    return "\n".join(lines)


def from_markdown(line: str) -> Row:
    """Return the row that `as_markdown` wrote as `line`."""
    fault, *numbers = (cell.strip() for cell in line.strip("| ").split(" | "))
    return Row(fault, *(int(number.replace(",", "")) for number in numbers))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
