"""Makes a worker's own instance of Dagster cheap: connections are kept, and what the run prints goes to its file alone.

The second is for a process that serves one run and ends; daemons and servers print as Dagster has them print.
"""

from dagster import DagsterInstance

from seedtrust_ops.instance import LocalRunOutput, keep_connections

MOST_CONNECTIONS = 11


def spare(instance: DagsterInstance) -> None:
    """Change the instance of this process, which must be no other's."""
    keep_connections(instance, most=MOST_CONNECTIONS)
    if isinstance(instance.compute_log_manager, LocalRunOutput):
        instance.compute_log_manager.mirrored = False
