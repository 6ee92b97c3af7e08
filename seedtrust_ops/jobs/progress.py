"""Shows how far a run has come: as a tag on the run, which its page and the list of runs show, and JobRun mirrors.

The run itself never writes JobRun.
"""

import dagster as dg

from seedtrust_ops.run_marks import PROGRESS_TAG


def show_progress(context: dg.OpExecutionContext, *, done: int, total: int) -> None:
    """Show that `done` of `total` steps of this run are behind it."""
    context.instance.add_run_tags(context.run_id, {PROGRESS_TAG: f"{done} of {total}"})
