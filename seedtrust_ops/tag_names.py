"""What the JobRun mirror and the client read from a Dagster run: tag names, the result label, and run statuses.

The web apps use the client, so this module does not import Dagster. Tags for queue limits are in `job_policies`.
"""

import re

PROGRESS_TAG = "seedtrust/progress"
"""The progress of a run, as "3 of 10"."""
EXPIRED_TAG = "seedtrust/expired"
"""Marks an expired run. The value is the run's own id, because a re-execution inherits the tag but is not expired."""
BATCH_TAG = "seedtrust/batch_id"
"""The Huntington batch that a run sends."""
RETURN_VALUE_LABEL = "returned"
"""The metadata label of an op's return value in its HANDLED_OUTPUT event, as {"value": ...}."""

JOB_RUN_STATUSES = {
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
"""JobRun status by Dagster run status (docs/rules.md, section 7). A canceled run with `EXPIRED_TAG` is EXPIRED."""


def parse_progress(tag: str | None) -> tuple[int, int] | None:
    """Return the steps done and the total from a run's progress tag, or None if it has none."""
    match = re.fullmatch(r"(\d{1,9}) of (\d{1,9})", tag or "", re.ASCII)
    return (int(match[1]), int(match[2])) if match is not None else None
