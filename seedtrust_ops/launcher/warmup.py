"""Makes runs start fast: a zygote imports early what Dagster imports only during a run, and a worker's own Dagster
instance gets pooled connections and no helper processes. No code of the code location runs here.
"""

import importlib

import dagster as dg
from dagster import DagsterInstance
from sqlalchemy import create_engine

from seedtrust_ops.dagster_instance import LocalRunOutput, pool_connections
from seedtrust_ops.dagster_internals import EARLY_IMPORTS, is_available

RUN_TIME_IMPORTS = (
    "psycopg2.extras",
    "seedtrust_ops.launcher.warm_run_launcher",
    "upath.implementations.local",
)
"""What the warm-up job does not import: the classes that `dagster.yaml` names, and what they use. Modules of Dagster
are in EARLY_IMPORTS."""
MAX_CONNECTIONS = 11


@dg.op(out=dg.Out(io_manager_key="io_manager"))
def warmup_op() -> None:
    """Do nothing."""


@dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
def warmup_job() -> None:
    """Run the op that does nothing."""
    warmup_op()


def warm_up() -> None:
    """Import everything that runs import, by executing an empty job on an in-memory instance.

    It leaves no connection, file or thread open.
    """
    for name in RUN_TIME_IMPORTS:
        importlib.import_module(name)
    is_available(EARLY_IMPORTS)  # looks them up, which imports them
    # The first engine imports the dialect; this one never connects.
    create_engine("postgresql+psycopg2://")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        warmup_job.execute_in_process(run_config=quiet, instance=instance)


def tune_worker_instance(instance: DagsterInstance) -> None:
    """Reduce what the instance costs a worker: pool its connections, and do not echo the run's captured output.

    The instance must belong to this process alone.
    """
    pool_connections(instance, max_connections=MAX_CONNECTIONS)
    if isinstance(instance.compute_log_manager, LocalRunOutput):
        instance.compute_log_manager.echoes_output = False
