"""A code location for the launcher's tests: jobs that do next to nothing, slowly, or wrongly.

The tests copy it into a folder of their own, so that they can change it between two runs.
"""

import os
import random
import sys
import time
from pathlib import Path

import dagster as dg

VERSION = "first"


def single(op: dg.OpDefinition) -> dg.JobDefinition:
    return dg.GraphDefinition(name=f"{op.name}_graph", node_defs=[op]).to_job(
        name=op.name, executor_def=dg.in_process_executor
    )


@dg.op(out=dg.Out(io_manager_key="nowhere"))
def nothing() -> None:
    pass


@dg.op(config_schema={"file": str, "hold": dg.Field(bool, default_value=False)}, out=dg.Out(io_manager_key="nowhere"))
def leave_a_mark(context: dg.OpExecutionContext) -> None:
    """Appends one line to the file that tells of this process, and stays until the file `<file>.go` is there."""
    sys.stdout.write("to standard output\n")
    sys.stderr.write("to standard error\n")
    mark = Path(context.op_config["file"])
    told = [context.run_id, VERSION, str(os.getpid()), str(random.random()), os.environ.get("MARK", ""), os.getcwd()]
    with mark.open("a") as file:
        file.write("|".join(told) + "\n")
    try:
        while context.op_config["hold"] and not mark.with_suffix(".go").exists():
            time.sleep(0.02)
    except BaseException as interruption:
        with mark.with_suffix(".interrupted").open("a") as file:
            file.write(f"{type(interruption).__name__}\n")
        raise


definitions = dg.Definitions(jobs=[single(nothing), single(leave_a_mark)], resources={"nowhere": dg.mem_io_manager})
