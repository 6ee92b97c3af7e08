"""Builds jobs from one op or one asset, with the tags, owners and metadata that their job policy prescribes.

What a job does and when it runs is in its own file in `jobs`.
"""

import warnings
from typing import Any, TypedDict

import dagster as dg
from pydantic import model_validator

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import UnresolvedAssetJobDefinition
from seedtrust_ops.job_policies import job_policy, label_tags, queue_tags, run_tags
from seedtrust_ops.orchestration.executor import in_process
from seedtrust_ops.severity import Severity
from seedtrust_ops.tag_names import MAX_RUNTIME_TAG

# Dagster warns at every use that owners of jobs, schedules and sensors are beta; the pinned version supports them.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)


class JobConfig(dg.Config):
    """Base class for run config; a field that is cleared in the launchpad gets its default value."""

    @model_validator(mode="before")
    @classmethod
    def _drop_cleared_fields(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if value is not None}


class OwnersAndTags(TypedDict):
    """The owners and search tags of a schedule, a sensor or an asset."""

    owners: list[str]
    tags: dict[str, str]


def owners_and_tags(job_name: str) -> OwnersAndTags:
    """Return the owners and tags of the job, for the schedule, sensor or asset that belongs to it.

    A sensor that launches no job passes its own name and gets the default policy.
    """
    return OwnersAndTags(owners=[job_policy(job_name).group.owner], tags=label_tags(job_name))


def single_op_job(
    op: dg.OpDefinition, severity: Severity, *, legacy_name: str, max_runtime_seconds: int | None = None
) -> dg.JobDefinition:
    """Return a job that runs `op` and has the op's name, so that a run's config names both at once.

    Args:
        op: the job's only op; its description becomes the job's description.
        severity: how serious it is if the job stops running.
        legacy_name: the name of the job in the system that this project replaces.
        max_runtime_seconds: Dagster ends a run that takes longer; None for the default of all jobs.
    """
    # The graph between the two needs its own name: Dagster does not allow an op and a graph with the same name.
    graph = dg.GraphDefinition(name=f"{op.name}_graph", node_defs=[op], description=op.description)
    limit = {} if max_runtime_seconds is None else {MAX_RUNTIME_TAG: str(max_runtime_seconds)}
    return graph.to_job(
        name=op.name,
        description=op.description,
        # A single op needs no process besides the run's own.
        executor_def=in_process,
        tags=label_tags(op.name) | run_tags(severity) | queue_tags(op.name) | limit,
        metadata={"Severity": severity.value, "Legacy name": legacy_name},
        owners=[job_policy(op.name).group.owner],
    )


def single_asset_job(
    name: str, asset: dg.AssetsDefinition, *, legacy_name: str, description: str
) -> UnresolvedAssetJobDefinition:
    """Return the job `name` that materializes one asset and runs all of its checks.

    Args:
        name: the job's name; `job_policies` has its severity, group and queue limits.
        asset: the asset to materialize.
        legacy_name: the name of the job in the system that this project replaces.
        description: what a run does, in one or two sentences.
    """
    policy = job_policy(name)
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(asset),
        description=description,
        executor_def=in_process,
        tags=label_tags(name) | run_tags(policy.severity) | queue_tags(name),
        metadata={"Severity": policy.severity.value, "Legacy name": legacy_name},
        owners=[policy.group.owner],
    )


def automation_status() -> tuple[dg.DefaultScheduleStatus, dg.DefaultSensorStatus]:
    """Return the default status of production schedules and sensors: STOPPED if DEV_ENV=1, otherwise RUNNING."""
    if get_settings().location.dev_env:
        return dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED
    return dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING
