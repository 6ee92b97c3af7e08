"""Runs histories of the model: so many steps from a seed, or the same ones every time.

Used by its test, by `make chaos` and by hand (`python -m seedtrust_ops_tests.chaos.model`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from seedtrust_ops.domain.transfers import sender
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.model.clocks import install_clock
from seedtrust_ops_tests.chaos.model.state_machine import BrokenPromises, Coverage, Transfers
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Violation, as_row

STEPS = 2_000
STEPS_A_HISTORY = 50
SHORT_HISTORIES = 1.25
"""So many more histories than that would take, for Hypothesis ends one early that has drawn much."""


def run_histories(
    ground: Ground,
    *,
    steps: int = STEPS,
    from_seed: int | None = None,
    shrink: bool = False,
    coverage: Coverage | None = None,
) -> Coverage:
    """Run about `steps` steps in histories of 50; raises `BrokenPromises` with the history that led there.

    Args:
        ground: where.
        steps: how many.
        from_seed: which histories; None for the same ones every time.
        shrink: whether to look for the shortest history that breaks the promise, which takes its time.
        coverage: what to count in, a new one where it is left out.
    """
    coverage = coverage or Coverage()
    with model_template(ground) as template, quick_bank_patience():
        members = {"ground": ground, "template": template, "banks": ground.banks, "coverage": coverage}
        machine = type("Transfers", (Transfers,), members)
        if from_seed is not None:
            seed(from_seed)(machine)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=max(1, math.ceil(steps / STEPS_A_HISTORY * SHORT_HISTORIES)),
                stateful_step_count=STEPS_A_HISTORY,
                phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                derandomize=from_seed is None,
                database=None,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return coverage


def run(ground: Ground, seed: int) -> list[Row]:
    """Run the model's part of `make chaos`; a history that breaks a promise counts as what the checker called it."""
    broken: list[Violation] = []
    coverage = Coverage()
    try:
        run_histories(ground, steps=STEPS, from_seed=seed, coverage=coverage)
    except BrokenPromises as error:
        broken = error.violations
    return [
        as_row(f"model: random histories of everything at once, {coverage.steps:,} steps", coverage.histories, broken)
    ]


@contextmanager
def model_template(ground: Ground) -> Iterator[str]:
    """A database with the model's clock, for every history to be copied from."""
    with ground.database() as url:
        install_clock(url)
        yield str(url.database)


@contextmanager
def quick_bank_patience() -> Iterator[None]:
    """Wait a 429 out in hundredths of a second, for the model orders many."""
    with patch.object(sender, "LEAST_WAIT_SECONDS", 0.02):
        yield
