"""Has a zygote load what Dagster itself loads only while a run goes on, so that no fork has to load it anew.

It executes a job of its own that does nothing, on an instance in memory; no code of the code location runs.
"""

import importlib

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy import create_engine

from seedtrust_ops.dagster_instance import LocalRunOutput, keep_connections

LOADED_BY_RUNS = (
    "dagster._core.execution.run_cancellation_thread",
    "dagster._core.instance.factory",
    "dagster._core.workspace.autodiscovery",
    "psycopg2.extras",
    "seedtrust_ops.launcher.warm_run_launcher",
    "upath.implementations.local",
)
"""What the rehearsal does not come by: the parts that `dagster.yaml` brings in."""


@dg.op(out=dg.Out(io_manager_key="io_manager"))
def rehearsed_op() -> None:
    """Does nothing."""


@dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
def rehearsed_job() -> None:
    """Runs the op that does nothing."""
    rehearsed_op()


def rehearse() -> None:
    """Load it all. Opens nothing that stays open: no connection, no file, no thread."""
    for name in LOADED_BY_RUNS:
        importlib.import_module(name)
    # The first engine loads the dialect; this one never connects.
    create_engine("postgresql+psycopg2://")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        rehearsed_job.execute_in_process(run_config=quiet, instance=instance)


MOST_CONNECTIONS = 11


def spare(instance: DagsterInstance) -> None:
    """Change the instance of this process, which must be no other's."""
    keep_connections(instance, most=MOST_CONNECTIONS)
    if isinstance(instance.compute_log_manager, LocalRunOutput):
        instance.compute_log_manager.mirrored = False
