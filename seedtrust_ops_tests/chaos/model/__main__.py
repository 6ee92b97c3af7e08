"""Runs the model by hand: `python -m seedtrust_ops_tests.chaos.model --steps 100000 --seed 7`.

It starts servers of its own, prints how often each rule ran, and fails with the history that broke a promise.
"""

import argparse
import time

from rich.console import Console
from rich.table import Table

from seedtrust_ops_tests.chaos.environment_setup import own_ground
from seedtrust_ops_tests.chaos.model.runner import run_histories
from seedtrust_ops_tests.chaos.model.state_machine import Coverage


def main() -> None:
    """Run as many steps as asked for."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops_tests.chaos.model", description=__doc__)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=None, help="without it, the same histories as in the tests")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest history that breaks a promise")
    arguments = parser.parse_args()
    begun_at = time.monotonic()
    with own_ground() as ground:
        coverage = run_histories(ground, steps=arguments.steps, from_seed=arguments.seed, shrink=arguments.shrink)
    console = Console()
    console.print(as_table(coverage))
    console.print(
        f"{coverage.steps:,} steps in {coverage.histories:,} histories, {time.monotonic() - begun_at:,.0f} s, "
        f"seed {arguments.seed}: every promise held."
    )


def as_table(coverage: Coverage) -> Table:
    """Return how often each rule ran, and how often something came of it."""
    table = Table(title="What happened")
    table.add_column("rule")
    table.add_column("ran", justify="right")
    table.add_column("something came of it", justify="right")
    for name, times in sorted(coverage.ran.items()):
        table.add_row(name, f"{times:,}", f"{coverage.came_of_it[name]:,}")
    return table


if __name__ == "__main__":
    main()
