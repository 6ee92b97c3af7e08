"""`make chaos`: every crash, fault and race of the suite, as a table of what the checker found.

It prints the table and keeps it in `docs/safety.md`; it ends with 1 where anything was found, or where a break of the
product was not.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from rich.console import Console

from seedtrust_ops_tests.chaos import (
    bank_worst_day,
    crash_points,
    database_worst_day,
    frozen_workers,
    office_crash_points,
    report,
)
from seedtrust_ops_tests.chaos.ground import Ground
from seedtrust_ops_tests.chaos.lanes import Group
from seedtrust_ops_tests.chaos.model import running as model
from seedtrust_ops_tests.chaos.mutations import MUTATIONS, UNBROKEN, Verdict, judge_copy
from seedtrust_ops_tests.chaos.starting_ground import own_ground
from seedtrust_ops_tests.chaos.table import Row, as_rich

SEED = 1
EVERY_STEP: tuple[Callable[[Ground], Iterable[Group]], ...] = (
    database_worst_day.run_all,
    crash_points.run_all,
    frozen_workers.run_all,
    office_crash_points.run_all,
)
SEEDED: tuple[Callable[[Ground, int], Iterable[Row]], ...] = (bank_worst_day.run, model.run)


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops_tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="for the parts that draw: the model and the bank's day")
    arguments = parser.parse_args()
    console = Console()
    made_at, begun_at = datetime.now(UTC), time.monotonic()
    rows: list[Row] = []
    with own_ground() as ground:
        for row in _rows(ground, arguments.seed, console):
            console.print(f"[dim]{time.monotonic() - begun_at:6.0f} s[/dim]  {row.fault}: {row.cases} cases")
            rows.append(row)
        verdicts = [judge_copy(ground, mutation) for mutation in (UNBROKEN, *MUTATIONS)]
    seconds = time.monotonic() - begun_at
    console.print(as_rich(rows, f"Money safety, {made_at:%Y-%m-%d}, seed {arguments.seed}, {seconds:.0f} s"))
    for verdict in verdicts:
        console.print(f"{verdict.mutation}: caught in {len(verdict.caught_by)} of {len(verdict.cases)} cases")
    report.keep(rows, verdicts, made_at=made_at, seed=arguments.seed, seconds=seconds)
    sys.exit(0 if all(row.is_clean for row in rows) and _are_right(verdicts) else 1)


def _rows(ground: Ground, seed: int, console: Console) -> Iterator[Row]:
    for run_all in EVERY_STEP:
        for group in run_all(ground):
            for case, found in group.findings.items():
                console.print(f"[red]{case}[/red]: {'; '.join(found)}")
            for case in group.missed:
                console.print(f"[yellow]never came: {case}[/yellow]")
            yield group.row
    for run in SEEDED:
        yield from run(ground, seed)


def _are_right(verdicts: Iterable[Verdict]) -> bool:
    return all(bool(verdict.caught_by) == (verdict.mutation != UNBROKEN.name) for verdict in verdicts)


if __name__ == "__main__":
    main()
