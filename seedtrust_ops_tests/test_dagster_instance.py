"""Connections to Dagster's database that are kept: used again, few, and given up where the server ended them."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster_postgres import PostgresRunStorage
from sqlalchemy import text

from seedtrust_ops.dagster_instance import keep_connections


def backend(instance: dg.DagsterInstance) -> int:
    """Which process of the server the instance's runs are read by."""
    storage = instance.run_storage
    assert isinstance(storage, PostgresRunStorage)
    with storage.connect() as connection:
        return int(connection.scalar(text("select pg_backend_pid()")) or 0)


def test_an_instance_that_keeps_its_connection_survives_its_end(instance: dg.DagsterInstance) -> None:
    assert backend(instance) != backend(instance), "Dagster connects anew by itself; keeping is not needed any more"
    keep_connections(instance, most=4)
    kept = backend(instance)
    assert backend(instance) == kept
    other = instance.event_log_storage
    with other.index_connection() as connection:  # type: ignore[attr-defined]
        connection.execute(text(f"select pg_terminate_backend({kept}, 60000)"))
    assert backend(instance) not in (0, kept)
    assert instance.get_runs_count() == 0


def test_more_threads_than_connections_wait_for_each_other(instance: dg.DagsterInstance) -> None:
    keep_connections(instance, most=2)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda _number: instance.get_runs_count(), range(64))) == [0] * 64
    assert instance.run_storage._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
