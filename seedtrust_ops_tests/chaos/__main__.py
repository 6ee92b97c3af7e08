"""`make chaos`: runs every crash, fault and random history of the suite and prints the violations as a table.

The table is also written into `docs/safety.md`. The exit code is 1 if there was any violation, or if a mutation was
not detected.
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
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.environment_setup import start_environment
from seedtrust_ops_tests.chaos.model import runner as model
from seedtrust_ops_tests.chaos.mutations import BASELINE, MUTATIONS, MutationResult, run_mutation
from seedtrust_ops_tests.chaos.results_table import Row, to_rich_table
from seedtrust_ops_tests.chaos.shards import ScenarioResult
from seedtrust_ops_tests.chaos.transfer_cases import run_scenario

SEED = 1
MUTATION_PART = "mutations"
CONSOLE = Console()


def main() -> None:
    """Run all parts, or one part again."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops_tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the random histories (part model)")
    parser.add_argument(
        "--only", choices=[*PARTS, MUTATION_PART], help="run only this part and update its rows in docs/safety.md"
    )
    arguments = parser.parse_args()
    started_at, start = datetime.now(UTC), time.monotonic()
    rows: list[Row] = []
    mutations: list[MutationResult] = []
    with start_environment() as environment:
        for name in [arguments.only] if arguments.only else [*PARTS, MUTATION_PART]:
            if name == MUTATION_PART:
                mutations = [run_mutation(environment, mutation) for mutation in (BASELINE, *MUTATIONS)]
                break
            for row in PARTS[name](environment, arguments.seed):
                CONSOLE.print(f"[dim]{time.monotonic() - start:6.0f} s[/dim]  {row.scenario}: {row.cases} cases")
                rows.append(row)
    seconds = time.monotonic() - start
    CONSOLE.print(to_rich_table(rows, f"Money safety, {started_at:%Y-%m-%d}, seed {arguments.seed}, {seconds:.0f} s"))
    for result in mutations:
        CONSOLE.print(f"{result.mutation}: detected in {len(result.detected_by)} of {len(result.cases)} cases")
    if arguments.only:
        report.update_report(rows, mutations, started_at=started_at, seed=arguments.seed)
    else:
        report.write_report(rows, mutations, started_at=started_at, seed=arguments.seed, seconds=seconds)
    sys.exit(0 if all(row.is_clean for row in rows) and _all_detected(mutations) else 1)


def _print_findings(results: Iterable[ScenarioResult]) -> Iterator[Row]:
    """Yield the scenarios' rows after printing their violations and the injection points that were not reached."""
    for result in results:
        for case, violations in result.findings.items():
            CONSOLE.print(f"[red]{case}[/red]: {'; '.join(violations)}")
        for case in result.unreached:
            CONSOLE.print(f"[yellow]injection point not reached: {case}[/yellow]")
        yield result.row


def _all_detected(results: Iterable[MutationResult]) -> bool:
    return all(bool(result.detected_by) == (result.mutation != BASELINE.name) for result in results)


PARTS: dict[str, Callable[[ChaosEnvironment, int], Iterable[Row]]] = {
    "crashes": lambda environment, _: _print_findings(crash_points.run_all(environment)),
    "freezes": lambda environment, _: _print_findings(frozen_workers.run_all(environment)),
    "jobs": lambda environment, _: _print_findings(job_crash_points.run_all(environment)),
    "statements": lambda environment, _: _print_findings(
        run_scenario(environment, scenario) for scenario in database_faults.SCENARIOS
    ),
    "server": lambda environment, _: _print_findings(database_faults.run_server_faults(environment)),
    "bank": bank_faults.run,
    "model": model.run,
}


if __name__ == "__main__":
    main()
