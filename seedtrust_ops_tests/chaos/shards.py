"""Runs the cases of a scenario in a few parallel shards, because most of a case is waiting for a bank or a process.

Each shard has its own bank and database. What a case does is defined by its part of the suite.
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
from seedtrust_ops_tests.chaos.bank_pool import BankPool, serve_bank_pool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.results_table import Row
from seedtrust_ops_tests.chaos.violations import Violation, build_row

SHARD_COUNT = 3

Case = TypeVar("Case")


@dataclass(frozen=True)
class CaseResult:
    """The violations found in one case; its name says which fault was injected where."""

    case: str
    violations: Sequence[Violation]


@dataclass(frozen=True)
class ScenarioResult:
    """All cases of one scenario; `unreached` are those whose injection point was not reached, so they prove nothing."""

    scenario: str
    cases: Sequence[CaseResult]
    unreached: Sequence[str] = ()

    @property
    def row(self) -> Row:
        """The scenario's row in the results table."""
        return build_row(self.scenario, len(self.cases), chain.from_iterable(one.violations for one in self.cases))

    @property
    def findings(self) -> dict[str, list[str]]:
        """The violations by case; empty if there are none."""
        return {one.case: [str(violation) for violation in one.violations] for one in self.cases if one.violations}


def collect_results(scenario: str, results: Iterable[CaseResult | str]) -> ScenarioResult:
    """Return the scenario's result; a result that is only a name is a case whose injection point was not reached."""
    listed = list(results)
    return ScenarioResult(
        scenario,
        [one for one in listed if isinstance(one, CaseResult)],
        [one for one in listed if isinstance(one, str)],
    )


class Shard:
    """A bank, and a database that is recreated under the same name for every case.

    The fixed name lets all cases share one engine: compiling its statements is most of what a case would cost.
    """

    def __init__(self, environment: ChaosEnvironment, banks: BankPool) -> None:
        self.environment = environment
        self.banks = banks
        self._name = f"chaos_{secrets.token_hex(6)}"
        self._engine = create_application_engine(
            environment.postgres_server.set(drivername="postgresql+psycopg", database=self._name)
        )

    @contextmanager
    def database(self, template: str) -> Iterator[tuple[URL, Sessions]]:
        """A case's own copy of `template`, and sessions on it through the product's engine."""
        with self.environment.database(template=template, name=self._name) as url:
            try:
                yield url, sessionmaker(self._engine, expire_on_commit=False)
            finally:
                self._engine.dispose()


@contextmanager
def open_shard(environment: ChaosEnvironment) -> Iterator[Shard]:
    """Open one shard."""
    with serve_bank_pool(environment.folder) as banks:
        yield Shard(environment, banks)


def run_in_shards(
    environment: ChaosEnvironment, cases: Sequence[Case], run: Callable[[Shard, Case], CaseResult | str]
) -> Iterator[CaseResult | str]:
    """Run each case in a free shard and yield the results in the order of the cases."""
    idle: LifoQueue[Shard] = LifoQueue()

    def run_in_shard(case: Case) -> CaseResult | str:
        shard = idle.get()
        try:
            return run(shard, case)
        finally:
            idle.put(shard)

    with ExitStack() as stack:
        for _ in range(SHARD_COUNT):
            idle.put(stack.enter_context(open_shard(environment)))
        with ThreadPoolExecutor(SHARD_COUNT) as pool:
            yield from pool.map(run_in_shard, cases)
