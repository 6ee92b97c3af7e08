"""Parts `statements` and `server`: lost connections, conflicts, a full disk, too few connections, a server restart.

Conflicts and the full disk are raised by the server itself, through a statement that the test runs in place of the
product's: the error code and the lost transaction are PostgreSQL's own, only the cause is not.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.chaos.crash_points import leave_transfers_open
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.chaos.environment_setup import TEMPLATE, prepare_server
from seedtrust_ops_tests.chaos.faults import Fault
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint
from seedtrust_ops_tests.chaos.shards import (
    CaseResult,
    ScenarioResult,
    Shard,
    collect_results,
    open_shard,
    run_in_shards,
)
from seedtrust_ops_tests.chaos.tasks import Task
from seedtrust_ops_tests.chaos.template_batch import template_with_batch
from seedtrust_ops_tests.chaos.transfer_cases import (
    MAX_TRIES,
    Scenario,
    TransferCase,
    find_injection_points,
    open_case,
    recover_and_check,
)
from seedtrust_ops_tests.chaos.worker_processes import run_worker, start_worker
from seedtrust_ops_tests.support.databases import postgres_folder
from seedtrust_ops_tests.support.waiters import wait_until

ALL_STATEMENTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
WRITE_STATEMENTS = ("INSERT", "UPDATE")
BEFORE = (False,)

SCENARIOS = (
    Scenario(
        "connection lost before each statement of batch processing",
        "process",
        statements=ALL_STATEMENTS,
        fault=Fault.DISCONNECT,
        event="lost its connection",
        sides=BEFORE,
    ),
    Scenario(
        "connection lost before each statement of auto-heal",
        "heal",
        prepare=leave_transfers_open,
        statements=ALL_STATEMENTS,
        fault=Fault.DISCONNECT,
        event="lost its connection",
        sides=BEFORE,
    ),
    Scenario(
        "serialization failure at each commit",
        "process",
        fault=Fault.SERIALIZATION,
        event="got a serialization failure",
        sides=BEFORE,
        step_prefix="commit",
    ),
    Scenario(
        "deadlock at each commit",
        "process",
        fault=Fault.DEADLOCK,
        event="got a deadlock",
        sides=BEFORE,
        step_prefix="commit",
    ),
    Scenario(
        "disk full from each INSERT or UPDATE onward",
        "process",
        statements=WRITE_STATEMENTS,
        fault=Fault.DISK_FULL,
        is_persistent=True,
        event="got a full disk",
        sides=BEFORE,
    ),
)

MAX_CONNECTIONS = 5
"""The size of the product's connection pool: with this many, none is refused."""


def limit_connections(environment: ChaosEnvironment) -> ScenarioResult:
    """Process and heal as a role that the server allows 0 to 5 connections."""
    cases = list(product(("process", "heal"), range(MAX_CONNECTIONS + 1)))
    with template_with_batch(environment) as template:
        return collect_results(
            "server limits the number of connections",
            run_in_shards(environment, cases, lambda shard, case: _run_with_connection_limit(shard, template, *case)),
        )


def _run_with_connection_limit(shard: Shard, template: str, task_name: str, limit: int) -> CaseResult:
    with (
        open_case(shard, template, concurrency=8) as case,
        _limited_role(shard.environment, limit) as role,
    ):
        if task_name == "heal":
            leave_transfers_open(case)
        config = case.config
        run_worker(Task(task_name, replace(config, database=config.database.set(username=role, password=role))))
        return CaseResult(f"{task_name} with {limit} connections", recover_and_check(case))


@contextmanager
def _limited_role(environment: ChaosEnvironment, limit: int) -> Iterator[str]:
    """A role that may read and write everything, with at most `limit` connections at a time."""
    # The tests' own role is a superuser, and the server never refuses a superuser's connection.
    role = f"chaos_{os.urandom(6).hex()}"
    admin_engine = create_engine(
        environment.postgres_server.set(drivername="postgresql+psycopg", database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    with admin_engine.connect() as connection:
        connection.execute(text(f"create role {role} login password '{role}' connection limit {limit}"))
        connection.execute(text(f"grant pg_read_all_data, pg_write_all_data to {role}"))
        try:
            yield role
        finally:
            connection.execute(text(f"drop role {role}"))
    admin_engine.dispose()


RESTART_SCENARIO = Scenario(
    "server restarts at each commit of a batch",
    "process",
    concurrency=8,
    fault=Fault.PAUSE,
    event="saw the server restart",
    sides=BEFORE,
    step_prefix="commit",
)


def restart_during_batch(environment: ChaosEnvironment) -> ScenarioResult:
    """Crash a separate server (SIGQUIT) and start it again, at each commit of a batch."""
    with postgres_folder() as folder:
        data = folder / "postgres"
        server = embedded_postgres.start(data)
        try:
            prepare_server(server)
            own_environment = replace(environment, postgres_server=server, template=TEMPLATE)
            with template_with_batch(own_environment) as template, open_shard(own_environment) as shard:
                points = find_injection_points(shard, template, RESTART_SCENARIO)
                return collect_results(
                    RESTART_SCENARIO.name, [_run_restart_case(shard, template, point, data) for point in points]
                )
        finally:
            embedded_postgres.stop(data)


def _run_restart_case(shard: Shard, template: str, point: InjectionPoint, data: Path) -> CaseResult | str:
    name = f"{RESTART_SCENARIO.event} {point}"
    for _ in range(MAX_TRIES):
        with (
            open_case(shard, template, concurrency=RESTART_SCENARIO.concurrency) as case,
            _checkpointed(case),
            start_worker(Task(RESTART_SCENARIO.task_name, case.config, point, fault=RESTART_SCENARIO.fault)) as worker,
        ):
            if worker.receive() != "paused":
                continue
            _crash_and_restart(data)
            worker.resume()
            worker.wait()
            return CaseResult(name, recover_and_check(case))
    return name


@contextmanager
def _checkpointed(case: TransferCase) -> Iterator[None]:
    """Write the fresh copy of the database to disk before anything crashes.

    PostgreSQL logs 32 sequence values ahead, and in a copied database it assumes that those are logged although only
    the original's were: until the next checkpoint, a crash would hand out numbers twice.
    """
    with case.sessions() as session:
        session.execute(text("checkpoint"))
    yield


def _crash_and_restart(data: Path) -> None:
    postmaster = psutil.Process(int((data / "postmaster.pid").read_text().split("\n", 1)[0]))
    # Immediate shutdown: every backend is cut off, and the next start recovers from the write-ahead log.
    postmaster.send_signal(signal.SIGQUIT)
    wait_until(lambda: not embedded_postgres.is_running(data), what="the server to stop")
    embedded_postgres.start(data)


def run_server_faults(environment: ChaosEnvironment) -> Iterator[ScenarioResult]:
    """Run the scenarios in which the server fails and not a single statement."""
    yield limit_connections(environment)
    yield restart_during_batch(environment)
