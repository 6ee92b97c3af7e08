"""A code location for the launcher's tests, with jobs that do almost nothing.

The tests copy it into their own folder, so that they can change it between two runs.
"""

import os
import random
import sys
import time
from pathlib import Path

import dagster as dg

VERSION = "first"


def single_op_job(op: dg.OpDefinition) -> dg.JobDefinition:
    return dg.GraphDefinition(name=f"{op.name}_graph", node_defs=[op]).to_job(
        name=op.name, executor_def=dg.in_process_executor
    )


@dg.op(out=dg.Out(io_manager_key="memory"))
def nothing() -> None:
    pass


@dg.op(config_schema={"file": str, "hold": dg.Field(bool, default_value=False)}, out=dg.Out(io_manager_key="memory"))
def report_run(context: dg.OpExecutionContext) -> None:
    """Appends a line about this process to `file`; with `hold`, runs until the file `<file>.release` exists."""
    sys.stdout.write("to standard output\n")
    sys.stderr.write("to standard error\n")
    report = Path(context.op_config["file"])
    fields = [
        context.run_id,
        VERSION,
        str(os.getpid()),
        str(random.random()),
        os.environ.get("REPORTED_VARIABLE", ""),
        os.getcwd(),
    ]
    with report.open("a") as file:
        file.write("|".join(fields) + "\n")
    try:
        while context.op_config["hold"] and not report.with_suffix(".release").exists():
            time.sleep(0.02)
    except BaseException as interruption:
        with report.with_suffix(".interrupted").open("a") as file:
            file.write(f"{type(interruption).__name__}\n")
        raise


definitions = dg.Definitions(
    jobs=[single_op_job(nothing), single_op_job(report_run)], resources={"memory": dg.mem_io_manager}
)
