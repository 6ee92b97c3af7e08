"""Which runs the queue accepts and the launchers start: what a run is follows from its job, and its code from here.

A person who launches a run may label it with tags of their own, but may not choose its container, severity, limits or
origin. The queue and the storage in `dagster_instance` and the launchers in `launcher` call these functions.
See docs/decisions/run-admission.md.
"""

import logging
import sys
from functools import cache
from pathlib import Path

from dagster import DagsterRun

from seedtrust_ops.dagster_internals import OWN_CODE, ModuleCodePointer, is_available
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.job_policies import is_priority_of, policy_tags
from seedtrust_ops.tag_names import (
    APPLICATION_TAG,
    EXPIRES_TAG,
    GROUP_TAG,
    MAX_RUNTIME_TAG,
    PARALLEL_TAG,
    PRIORITY_TAG,
    REQUEST_TAG,
    SEVERITY_TAG,
    SINGLETON_TAG,
)

OWN_DEFINITIONS = "seedtrust_ops.definitions:defs"
"""The module and the attribute that every run's code is loaded from."""

CONTAINER_PREFIXES = ("dagster-", "ecs/", "docker/")
"""Tags by which Dagster's launchers and executors let a run replace its image, command, account, queue or resources."""
CONTAINER_TAGS = frozenset({"dagster/image", "dagster/isolation"})
LAUNCHER_RECORDS = frozenset({"ecs/task_arn", "ecs/cluster", "dagster/image"})
"""Where a launcher records what it started, and finds it again. A re-execution has its parent's until it starts."""
POLICY_TAGS = frozenset(
    {
        *(SEVERITY_TAG, GROUP_TAG, PRIORITY_TAG, SINGLETON_TAG, PARALLEL_TAG, EXPIRES_TAG, MAX_RUNTIME_TAG),
        # No policy sets these.
        *("dagster/max_runtime_seconds", "dagster/concurrency_key", "dagster/defer_asset_events"),
        *("dagster/max_retries", "dagster/retry_strategy", "dagster/retry_on_asset_or_op_failure"),
    }
)
"""Tags whose values follow from the policy of the run's job."""
BACKFILL_TAG = "dagster/backfill"
BACKFILL_TAGS = frozenset({BACKFILL_TAG, "dagster/parent_backfill_id", "dagster/root_backfill_id"})
SCHEDULE_TAG = "dagster/schedule_name"
SENSOR_TAG = "dagster/sensor_name"
AUTOMATION_TAGS = frozenset(
    {
        *(SCHEDULE_TAG, SENSOR_TAG, "dagster/tick", "dagster/run_key", "dagster/auto_materialize"),
        *("dagster/auto_observe", "dagster/from_automation_condition", "dagster/asset_evaluation_id"),
    }
)
"""What Dagster records about the schedule, the sensor or the condition that launched a run, and relies on later."""
RECORD_PREFIXES = ("seedtrust/", ".dagster/")
"""What our schedules, sensors and runs, and Dagster's processes, record about a run, and rely on later."""
CLIENT_TAGS = frozenset({APPLICATION_TAG, REQUEST_TAG})

_logger = logging.getLogger(__name__)


class RunRefused(SeedTrustError):
    """A run is not queued or not started, because its tags or its code do not follow from its job.

    Args:
        message: a sentence for the person who launched it.
        tags: the names of the tags that it must not have.
    """

    def __init__(self, message: str, tags: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.tags = tags


def check_tags(run: DagsterRun, *, parent: DagsterRun | None, from_web: bool) -> dict[str, str]:
    """Return the tags to set on a run before it is queued, so that it has what its job's policy says.

    A re-execution has its parent's tags. Those of an older policy are replaced; what Dagster and our schedules and
    sensors recorded about the parent stays.

    Args:
        run: the run, which has not been queued.
        parent: the run that it re-executes, if any.
        from_web: whether a request to the web server launched it, not a daemon or the command line.

    Raises:
        RunRefused: if the person who launched the run chose a tag that is not theirs to choose.
    """
    inherited = parent.tags if parent is not None and parent.job_name == run.job_name else {}
    # A backfill has tags that a person gave it.
    automated = not from_web and BACKFILL_TAG not in run.tags and bool({SCHEDULE_TAG, SENSOR_TAG} & run.tags.keys())
    expected = policy_tags(run.job_name)
    corrected = {name: value for name, value in expected.items() if name not in run.tags}
    refused = []
    for name, value in run.tags.items():
        is_inherited = inherited.get(name) == value
        is_chosen = not (is_inherited or automated)
        if chooses_container(name):
            if not (is_inherited and name in LAUNCHER_RECORDS):
                refused.append(name)
        elif name in POLICY_TAGS:
            may_differ = name == PRIORITY_TAG and (is_inherited or not from_web)
            is_in_bounds = may_differ and is_priority_of(run.job_name, value)
            if value != expected.get(name) and not is_in_bounds:
                if is_chosen:
                    refused.append(name)
                else:
                    corrected[name] = expected.get(name, "")
        elif is_record(name) and is_chosen and (from_web or name not in BACKFILL_TAGS):
            refused.append(name)
    if refused:
        raise RunRefused(
            f"This run of {run.job_name} was refused because of its tags {', '.join(sorted(refused))}. A run's "
            "container, severity, limits and origin follow from its job, not from who launches it. Launch it "
            "without these tags.",
            tuple(refused),
        )
    return corrected


def chooses_container(tag: str) -> bool:
    """Return whether a launcher or an executor of Dagster may read from the tag how and as whom to start the run."""
    return tag.startswith(CONTAINER_PREFIXES) or tag in CONTAINER_TAGS


def is_record(tag: str) -> bool:
    """Return whether the tag is Dagster's or our own record of the run, rather than somebody's label."""
    if tag in CLIENT_TAGS:
        return False
    return tag.startswith(RECORD_PREFIXES) or tag in AUTOMATION_TAGS or tag in BACKFILL_TAGS


def require_startable(run: DagsterRun) -> None:
    """Check a run that a launcher is about to start: its tags may have changed in the queue, its code in the database.

    Raises:
        RunRefused: if a tag would choose its container, or if its code is not this project's (`with_own_code`).
    """
    tags = [name for name in run.tags if chooses_container(name) and name not in LAUNCHER_RECORDS]
    if tags:
        raise RunRefused(
            f"Run {run.run_id} of {run.job_name} was not started, because its tags {', '.join(sorted(tags))} would "
            "choose its container. The queue refuses such runs, so these tags were written into Dagster's database. "
            "Find out who did that."
        )
    if run.job_code_origin is None:
        raise RunRefused(
            f"Run {run.run_id} of {run.job_name} was not started, because Dagster's database names other code for it "
            f"than {OWN_DEFINITIONS}. If nobody has launched it from another code location, somebody has written into "
            "that database. Find out who did that."
        )


def with_own_code(run: DagsterRun, definitions: str) -> DagsterRun:
    """Return the run as this process may use it: its code is this process's own, or none if it names other code.

    Dagster stores with each run which module to import, from which folder, with which program and in which image. Of
    these only the module's name is compared; the others are this process's own, whatever the database says.

    Args:
        run: a run as it was stored.
        definitions: the module and the attribute of the code that may be loaded, as in OWN_DEFINITIONS.
    """
    origin = run.job_code_origin
    if origin is None or not is_available(OWN_CODE):
        return run
    module, _, attribute = definitions.partition(":")
    pointer = origin.get_repo_pointer()
    if not isinstance(pointer, ModuleCodePointer) or (pointer.module, pointer.fn_name) != (module, attribute):
        _warn_once(run.run_id, definitions)
        return run._replace(job_code_origin=None)
    repository = origin.repository_origin._replace(
        executable_path=sys.executable,
        code_pointer=ModuleCodePointer(module, attribute, str(Path.cwd())),
        container_image=None,
        entry_point=["dagster"],
        container_context={},
    )
    return run._replace(job_code_origin=origin._replace(repository_origin=repository))


@cache
def _warn_once(run_id: str, definitions: str) -> None:
    _logger.warning(
        "Dagster's database names other code for run %s than %s, so this process does not load its code.",
        run_id,
        definitions,
    )
