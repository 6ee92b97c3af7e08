"""Makes a worker's own instance of Dagster cheap: connections are kept, and what the run prints goes to its file alone.

Both are for a process that serves one run and ends; daemons and servers keep Dagster's own ways.
"""

from dagster import DagsterInstance
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage
from sqlalchemy import create_engine

from seedtrust_ops.instance import LocalRunOutput


def spare(instance: DagsterInstance) -> None:
    """Change the instance of this process, which must be no other's."""
    for storage in (instance.run_storage, instance.event_log_storage):
        if isinstance(storage, PostgresRunStorage | PostgresEventLogStorage):
            # Dagster connects anew for every statement, about forty times a run. A kept connection is tried before
            # each use, so that a database that was away is no harder on a run than it was.
            storage._engine = create_engine(
                storage.postgres_url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True
            )
    if isinstance(instance.compute_log_manager, LocalRunOutput):
        instance.compute_log_manager.mirrored = False
