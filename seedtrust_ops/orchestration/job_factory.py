"""What every job does alike: retries, failures that people can read, owners, and whether its automation starts on.

A job's own rule, schedule and words are in its file.
"""

import warnings
from typing import Any, TypedDict

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import model_validator

from seedtrust_ops.config import get_settings
from seedtrust_ops.job_policies import LONGEST_TAG, job_policy, labels_of, queue_tags
from seedtrust_ops.orchestration.executor import in_process
from seedtrust_ops.severity import Severity, run_tags

# Dagster calls the owners of jobs, schedules and sensors beta at every use; the pinned version has them.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)


class JobConfig(dg.Config):
    """What a person may change of a launch; a field that is emptied in the launchpad has its default again."""

    @model_validator(mode="before")
    @classmethod
    def _without_emptied_fields(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None}


class Belonging(TypedDict):
    """Who answers for a schedule, a sensor or an asset, and the tags by which people find it."""

    owners: list[str]
    tags: dict[str, str]


def owners_and_tags(job_name: str) -> Belonging:
    """Return what a schedule, a sensor or an asset takes over from the job that it launches or is made by.

    A sensor that launches none gives its own name, and is as bad to miss as a job that the rules don't name.
    """
    return Belonging(owners=[job_policy(job_name).group.owner], tags=labels_of(job_name))


def single_op_job(
    op: dg.OpDefinition, severity: Severity, *, legacy_name: str, longest_seconds: int | None = None
) -> dg.JobDefinition:
    """Return the job that runs `op` and bears its name, so that people write the name once in a run's config.

    Args:
        op: the job's one op; its description is the job's.
        severity: how bad it is when the job stops.
        legacy_name: what the job was called in the systems that this one replaces.
        longest_seconds: after so long Dagster ends a run of it; None for the limit of all jobs.
    """
    # The graph between the two needs a name of its own: Dagster allows no op and graph of one name.
    graph = dg.GraphDefinition(name=f"{op.name}_graph", node_defs=[op], description=op.description)
    limit = {} if longest_seconds is None else {LONGEST_TAG: str(longest_seconds)}
    return graph.to_job(
        name=op.name,
        description=op.description,
        # One op needs no process of its own beside the run's.
        executor_def=in_process,
        tags=labels_of(op.name) | run_tags(severity) | queue_tags(op.name) | limit,
        metadata={"severity": severity.value, "legacy name": legacy_name},
        owners=[job_policy(op.name).group.owner],
    )


def single_asset_job(
    name: str, asset: dg.AssetsDefinition, *, legacy_name: str, description: str
) -> UnresolvedAssetJobDefinition:
    """Return the job `name` that makes one asset and looks at all of its checks.

    Args:
        name: the job's; its severity, group and time in the queue are those of `job_rules`.
        asset: what it makes.
        legacy_name: what the job was called in the systems that this one replaces.
        description: in a sentence or two, what its runs do.
    """
    rules = job_policy(name)
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(asset),
        description=description,
        executor_def=in_process,
        tags=labels_of(name) | run_tags(rules.severity) | queue_tags(name),
        metadata={"severity": rules.severity.value, "legacy name": legacy_name},
        owners=[rules.group.owner],
    )


def automation_status() -> tuple[dg.DefaultScheduleStatus, dg.DefaultSensorStatus]:
    """Return how production schedules and sensors start: stopped where DEV_ENV=1, else running."""
    if get_settings().location.dev_env:
        return dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED
    return dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING
