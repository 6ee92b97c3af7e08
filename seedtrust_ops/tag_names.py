"""The names of run tags, and what else the JobRun mirror and the client read from a run: result label and statuses.

The values that a job's runs get are in `job_policies`. The web apps use the client, so this module imports no Dagster.
"""

import re

SEVERITY_TAG = "seedtrust/severity"
GROUP_TAG = "seedtrust/group"
"""The business area of a run's job."""
EXPIRES_TAG = "seedtrust/expires_in_seconds"
"""How long a run may wait in the queue."""
EXPIRED_TAG = "seedtrust/expired"
"""Marks an expired run. The value is the run's own id, because a re-execution inherits the tag but is not expired."""
SINGLETON_TAG = "seedtrust/singleton"
"""At most one run per value of this tag is in progress: `dagster.yaml` limits each value to one."""
PARALLEL_TAG = "seedtrust/parallel"
"""Runs with this tag may run concurrently, up to the limit that `dagster.yaml` sets for its value."""
PRIORITY_TAG = "dagster/priority"
"""Dagster's queue starts runs with a higher number first."""
MAX_RUNTIME_TAG = "dagster/max_runtime"
"""Dagster ends a run after this number of seconds."""

PERSON_TAG = "user"
"""Dagster's list of runs shows this tag as the person who launched the run."""
APPLICATION_TAG = "seedtrust/launched_from"
"""The application that launched a run with the client."""
REQUEST_TAG = "seedtrust/request_id"
"""The idempotency key of a launch with the client."""

DUE_TAG = "seedtrust/due"
"""The due date that a schedule launched a run for, in ISO 8601."""
REASON_TAG = "seedtrust/reason"
"""Why a schedule or sensor requested a run."""
SHADOW_TAG = "seedtrust/shadow"
"""Marks a run that only recorded its decisions, because its job was in shadow mode."""
BATCH_TAG = "seedtrust/batch_id"
"""The Huntington batch that a run sends."""
GENERATION_TAG = "seedtrust/generation"
"""How many times the batch of a run was queued."""
HALTED_TAG = "seedtrust/halted"
"""Marks a run that sent nothing because sending was halted."""
PROGRESS_TAG = "seedtrust/progress"
"""The progress of a run, as "3 of 10"."""
WORKER_TAG = "seedtrust/run_worker"
"""The process that executes a run (`launcher/worker_identity`)."""

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
UNKNOWN_STATUS = "PENDING"
"""JobRun's status for one that a newer version of Dagster has: from it, a run can still get to every other status."""


def parse_progress(tag: str | None) -> tuple[int, int] | None:
    """Return the steps done and the total from a run's progress tag, or None if it has none."""
    match = re.fullmatch(r"(\d{1,9}) of (\d{1,9})", tag or "", re.ASCII)
    return (int(match[1]), int(match[2])) if match is not None else None
