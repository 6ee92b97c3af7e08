"""Runs cases in a few lanes, for most of a case is waiting: for a bank that is late, for a process to end.

Each lane has banks of its own; what a case is, its part knows.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from queue import LifoQueue
from typing import TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks, serve_fresh_banks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Violation, as_row

LANES = 3

Case = TypeVar("Case")


@dataclass(frozen=True)
class Outcome:
    """What the checker found in one case, whose name says what befell whom and when."""

    case: str
    violations: Sequence[Violation]


@dataclass(frozen=True)
class Group:
    """All cases of one fault; `missed` are those whose moment never came, so that nothing was shown by them."""

    fault: str
    outcomes: Sequence[Outcome]
    missed: Sequence[str] = ()

    @property
    def row(self) -> Row:
        """The group's row of the table."""
        return as_row(self.fault, len(self.outcomes), chain.from_iterable(one.violations for one in self.outcomes))

    @property
    def findings(self) -> dict[str, list[str]]:
        """What was found, by case: empty where all is well."""
        return {one.case: [str(violation) for violation in one.violations] for one in self.outcomes if one.violations}


def group(fault: str, outcomes: Iterable[Outcome | str]) -> Group:
    """Return the group of these outcomes; one that is but a name was missed."""
    listed = list(outcomes)
    return Group(
        fault,
        [one for one in listed if isinstance(one, Outcome)],
        [one for one in listed if isinstance(one, str)],
    )


class Lane:
    """Banks, and a database that is new for every case and always has the same name.

    So that one engine does for all of them: what it has compiled is most of what a case would cost.
    """

    def __init__(self, ground: Ground, banks: FreshBanks) -> None:
        self.ground = ground
        self.banks = banks
        self._name = f"chaos_{secrets.token_hex(6)}"
        self._engine = create_application_engine(
            ground.postgres_server.set(drivername="postgresql+psycopg", database=self._name)
        )

    @contextmanager
    def database(self, template: str) -> Iterator[tuple[URL, Sessions]]:
        """A case's own copy of `template`, and sessions on it through the product's own engine."""
        with self.ground.database(template=template, name=self._name) as url:
            try:
                yield url, sessionmaker(self._engine, expire_on_commit=False)
            finally:
                self._engine.dispose()


@contextmanager
def open_lane(ground: Ground) -> Iterator[Lane]:
    """Open a lane."""
    with serve_fresh_banks(ground.folder) as banks:
        yield Lane(ground, banks)


def in_lanes(
    ground: Ground, cases: Sequence[Case], run: Callable[[Lane, Case], Outcome | str]
) -> Iterator[Outcome | str]:
    """Run each case in a lane that is free, and yield the outcomes in the order of the cases."""
    idle: LifoQueue[Lane] = LifoQueue()

    def run_in_lane(case: Case) -> Outcome | str:
        lane = idle.get()
        try:
            return run(lane, case)
        finally:
            idle.put(lane)

    with ExitStack() as stack:
        for _ in range(LANES):
            idle.put(stack.enter_context(open_lane(ground)))
        with ThreadPoolExecutor(LANES) as pool:
            yield from pool.map(run_in_lane, cases)
