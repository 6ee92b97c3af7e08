"""Pooled connections to Dagster's database are reused, limited, and replaced if the server closed them."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster_postgres import PostgresRunStorage
from sqlalchemy import text

from seedtrust_ops.dagster_instance import pool_connections


def backend_pid(instance: dg.DagsterInstance) -> int:
    """Return the pid of the server process that serves the instance's run storage."""
    storage = instance.run_storage
    assert isinstance(storage, PostgresRunStorage)
    with storage.connect() as connection:
        return int(connection.scalar(text("select pg_backend_pid()")) or 0)


def test_pooled_connection_is_reused_and_replaced_when_closed(instance: dg.DagsterInstance) -> None:
    assert backend_pid(instance) != backend_pid(instance), (
        "Dagster pools connections itself now; `pool_connections` is not needed anymore"
    )
    pool_connections(instance, max_connections=4)
    pooled = backend_pid(instance)
    assert backend_pid(instance) == pooled
    other = instance.event_log_storage
    with other.index_connection() as connection:  # type: ignore[attr-defined]
        connection.execute(text(f"select pg_terminate_backend({pooled}, 60000)"))
    assert backend_pid(instance) not in (0, pooled)
    assert instance.get_runs_count() == 0


def test_threads_wait_if_all_connections_are_in_use(instance: dg.DagsterInstance) -> None:
    pool_connections(instance, max_connections=2)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda _number: instance.get_runs_count(), range(64))) == [0] * 64
    assert instance.run_storage._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
