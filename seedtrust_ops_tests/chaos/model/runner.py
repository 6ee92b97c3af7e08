"""Runs random histories of the model: a number of steps from a seed, or the same ones every time.

Used by its test, by `make chaos`, and from the command line (`python -m seedtrust_ops_tests.chaos.model`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from seedtrust_ops.domain.transfers import funding, sender
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.model.clocks import install_clock
from seedtrust_ops_tests.chaos.model.state_machine import Coverage, InvariantsViolated, Transfers
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Violation, build_row

STEPS = 2_000
STEPS_PER_HISTORY = 50
EXTRA_HISTORIES = 1.25
"""The factor by which more histories run than 50 steps each would need: Hypothesis ends some of them early."""


def run_histories(
    environment: ChaosEnvironment,
    *,
    steps: int = STEPS,
    from_seed: int | None = None,
    shrink: bool = False,
    coverage: Coverage | None = None,
) -> Coverage:
    """Run about `steps` steps in histories of 50; raises `InvariantsViolated` with the history that led there.

    Args:
        environment: the servers to run on.
        steps: how many steps.
        from_seed: the seed of the histories; None for the same ones every time.
        shrink: whether to search for the shortest history with the violation, which takes longer.
        coverage: where to count; a new one if omitted.
    """
    coverage = coverage or Coverage()
    with model_template(environment) as template, short_rate_limit_waits():
        members = {"environment": environment, "template": template, "banks": environment.banks, "coverage": coverage}
        machine = type("Transfers", (Transfers,), members)
        if from_seed is not None:
            seed(from_seed)(machine)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=max(1, math.ceil(steps / STEPS_PER_HISTORY * EXTRA_HISTORIES)),
                stateful_step_count=STEPS_PER_HISTORY,
                phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                derandomize=from_seed is None,
                database=None,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return coverage


def run(environment: ChaosEnvironment, seed: int) -> list[Row]:
    """Run part `model` of `make chaos`; the violations of a failing history count by their kind."""
    violations: list[Violation] = []
    coverage = Coverage()
    try:
        run_histories(environment, steps=STEPS, from_seed=seed, coverage=coverage)
    except InvariantsViolated as error:
        violations = error.violations
    return [build_row(f"model: random event histories, {coverage.steps:,} steps", coverage.histories, violations)]


@contextmanager
def model_template(environment: ChaosEnvironment) -> Iterator[str]:
    """The name of a database with the model's clock, for every history to copy."""
    with environment.database() as url:
        install_clock(url)
        yield str(url.database)


@contextmanager
def short_rate_limit_waits() -> Iterator[None]:
    """Wait only hundredths of a second after a 429 or for a bank that does not respond: the model injects many."""
    with (
        patch.object(sender, "MIN_RATE_LIMIT_WAIT_SECONDS", 0.02),
        patch.object(funding, "RECHECK_INTERVAL_SECONDS", 0.02),
        patch.object(funding, "MAX_RECHECK_SECONDS", 0.02),
    ):
        yield
