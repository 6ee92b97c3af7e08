"""Errands: one job's work, what befalls the worker that does it, and what it tells of that.

They are what a test and its worker's process say to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seedtrust_ops_tests.chaos.faults import Strike
from seedtrust_ops_tests.chaos.injection_points import Moment
from seedtrust_ops_tests.chaos.worker_environment import Workplace


@dataclass(frozen=True)
class Errand:
    """What a worker is to do, where, and what befalls it.

    `work` names one of the functions in `works`; without `moment` nothing befalls it and its steps are recorded.
    `statements` are the SQL verbs whose statements count as steps in the place of everything else.
    """

    work: str
    place: Workplace
    moment: Moment | None = None
    strike: Strike = Strike.DIE
    goes_on: bool = False
    statements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What a worker told before it ended: its steps, whether it was struck, and what it raised, if it did.

    `were_leaving` are the transactions whose request was on its way out of the process when it was struck.
    """

    steps: Sequence[str]
    was_struck: bool
    trouble: str | None
    were_leaving: frozenset[int]
