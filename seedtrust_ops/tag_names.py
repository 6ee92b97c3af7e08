"""What a run of Dagster's bears for others to read, and what its status is called in JobRun's words.

The mirror into JobRun and the applications' client read the same marks; who sets them is in `jobs/`. No Dagster here.
"""

import re

PROGRESS_TAG = "seedtrust/progress"
"""How far a run has come, as "3 of 10"."""
EXPIRED_TAG = "seedtrust/expired"
"""Its value is the run's own id: a run that is launched again from an expired one inherits the tag, and is not it."""
BATCH_TAG = "seedtrust/batch_id"
"""Which Huntington batch a run sends."""
RETURNED = "returned"
"""The name under which the event of a handled output shows what the op returned, as {"value": ...}."""

IN_JOB_RUNS_WORDS = {
    "NOT_STARTED": "PENDING",
    "QUEUED": "PENDING",
    "MANAGED": "PENDING",
    "STARTING": "PENDING",
    "STARTED": "STARTED",
    "SUSPENDED": "STARTED",
    "CANCELING": "STARTED",
    "SUCCESS": "COMPLETED",
    "FAILURE": "ERROR",
    "CANCELED": "REVOKED",
}
"""JobRun's status for each of Dagster's (design, section 7); a canceled run that bears `EXPIRED_TAG` is EXPIRED."""


def progress_in(tag: str | None) -> tuple[int, int] | None:
    """Return the steps done and all of them, as a run's tag shows them; None where it shows none."""
    shown = re.fullmatch(r"(\d{1,9}) of (\d{1,9})", tag or "", re.ASCII)
    return (int(shown[1]), int(shown[2])) if shown is not None else None
