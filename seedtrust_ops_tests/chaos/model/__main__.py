"""Runs the model from the command line: `python -m seedtrust_ops_tests.chaos.model --steps 100000 --seed 7`.

It starts its own servers, prints how often each rule ran, and fails with the history that violated an invariant.
"""

import argparse
import time

from rich.console import Console
from rich.table import Table

from seedtrust_ops_tests.chaos.environment_setup import start_environment
from seedtrust_ops_tests.chaos.model.runner import STEPS, run_histories
from seedtrust_ops_tests.chaos.model.state_machine import Coverage


def main() -> None:
    """Run the requested number of steps."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops_tests.chaos.model", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=None, help="without it, the same histories as in the tests")
    parser.add_argument("--shrink", action="store_true", help="search for the shortest history with the violation")
    arguments = parser.parse_args()
    start = time.monotonic()
    with start_environment() as environment:
        coverage = run_histories(environment, steps=arguments.steps, from_seed=arguments.seed, shrink=arguments.shrink)
    console = Console()
    console.print(build_table(coverage))
    console.print(
        f"{coverage.steps:,} steps in {coverage.histories:,} histories, {time.monotonic() - start:,.0f} s, "
        f"seed {arguments.seed}: no violations."
    )


def build_table(coverage: Coverage) -> Table:
    """Return how often each rule ran, and how often it had an effect."""
    table = Table(title="What happened")
    table.add_column("rule")
    table.add_column("ran", justify="right")
    table.add_column("had an effect", justify="right")
    for name, times in sorted(coverage.ran.items()):
        table.add_row(name, f"{times:,}", f"{coverage.had_effect[name]:,}")
    return table


if __name__ == "__main__":
    main()
