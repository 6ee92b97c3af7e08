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
    bank_faults,
    crash_points,
    database_faults,
    frozen_workers,
    job_crash_points,
    report,
)
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.environment_setup import own_ground
from seedtrust_ops_tests.chaos.model import runner as model
from seedtrust_ops_tests.chaos.mutations import MUTATIONS, UNBROKEN, Verdict, judge_copy
from seedtrust_ops_tests.chaos.results_table import Row, as_rich
from seedtrust_ops_tests.chaos.shards import Group
from seedtrust_ops_tests.chaos.transfer_cases import run_play

SEED = 1
MUTATION_CHECK = "mutations"
CONSOLE = Console()


def main() -> None:
    """Run everything, or one part again."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops_tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="for the part that draws: the model")
    parser.add_argument("--only", choices=[*PARTS, MUTATION_CHECK], help="run this part again and keep what it came to")
    arguments = parser.parse_args()
    made_at, begun_at = datetime.now(UTC), time.monotonic()
    rows: list[Row] = []
    verdicts: list[Verdict] = []
    with own_ground() as ground:
        for name in [arguments.only] if arguments.only else [*PARTS, MUTATION_CHECK]:
            if name == MUTATION_CHECK:
                verdicts = [judge_copy(ground, mutation) for mutation in (UNBROKEN, *MUTATIONS)]
                break
            for row in PARTS[name](ground, arguments.seed):
                CONSOLE.print(f"[dim]{time.monotonic() - begun_at:6.0f} s[/dim]  {row.fault}: {row.cases} cases")
                rows.append(row)
    seconds = time.monotonic() - begun_at
    CONSOLE.print(as_rich(rows, f"Money safety, {made_at:%Y-%m-%d}, seed {arguments.seed}, {seconds:.0f} s"))
    for verdict in verdicts:
        CONSOLE.print(f"{verdict.mutation}: caught in {len(verdict.caught_by)} of {len(verdict.cases)} cases")
    if arguments.only:
        report.keep_again(rows, verdicts, made_at=made_at, seed=arguments.seed)
    else:
        report.keep(rows, verdicts, made_at=made_at, seed=arguments.seed, seconds=seconds)
    sys.exit(0 if all(row.is_clean for row in rows) and _are_right(verdicts) else 1)


def _told(groups: Iterable[Group]) -> Iterator[Row]:
    """Yield the groups' rows, having said what was found and which moments never came."""
    for group in groups:
        for case, found in group.findings.items():
            CONSOLE.print(f"[red]{case}[/red]: {'; '.join(found)}")
        for case in group.missed:
            CONSOLE.print(f"[yellow]never came: {case}[/yellow]")
        yield group.row


def _are_right(verdicts: Iterable[Verdict]) -> bool:
    return all(bool(verdict.caught_by) == (verdict.mutation != UNBROKEN.name) for verdict in verdicts)


PARTS: dict[str, Callable[[Ground, int], Iterable[Row]]] = {
    "deaths": lambda ground, _: _told(crash_points.run_all(ground)),
    "freezes": lambda ground, _: _told(frozen_workers.run_all(ground)),
    "office": lambda ground, _: _told(job_crash_points.run_all(ground)),
    "statements": lambda ground, _: _told(run_play(ground, play) for play in database_faults.PLAYS),
    "server": lambda ground, _: _told(database_faults.server_troubles(ground)),
    "bank": bank_faults.run,
    "model": model.run,
}


if __name__ == "__main__":
    main()
