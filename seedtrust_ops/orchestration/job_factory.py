"""Builds jobs from one function or one asset: retries, readable failures, shadow mode, and what the job policy says.

What a job does is in its own file in `jobs`, when it runs is built by `schedules`, and jobs that email people are built
by `email_jobs`.
See docs/decisions/job-factory.md.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict

import dagster as dg
from pydantic import ValidationError, model_validator

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import UnresolvedAssetJobDefinition
from seedtrust_ops.errors import InputError
from seedtrust_ops.formatting import single_line
from seedtrust_ops.job_policies import job_policy, label_tags, policy_tags
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, ReadOnlyDatabase
from seedtrust_ops.orchestration.executor import in_process
from seedtrust_ops.orchestration.shadow_runs import OpContext, ShadowRule, is_in_shadow_mode, run_in_shadow_mode
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

# Dagster warns at every use that owners and backfill policies are beta; the pinned version supports them.
warnings.filterwarnings("ignore", message="Parameter `(owners|backfill_policy)`", category=dg.BetaWarning)


SHADOW_LABEL = "In shadow mode"
"""The metadata of a job or an asset that says what it does in shadow mode; whatever lacks it would run live."""


MAX_VALUE_CHARS = 60
"""A value that a person typed into the run config is repeated up to this length."""


class InvalidRunConfig(InputError):
    """A value in a run's config is outside of its limits."""


class JobConfig(dg.Config):
    """Base class for run config; a field that is cleared in the launchpad gets its default value.

    A number has an upper limit, `MAX_ID` if it is that of a row: the database refuses a larger one in its own words.
    """

    def __init__(self, **values: Any) -> None:
        """Take the values; one outside of its limits fails the run at once, and the message names it."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = " ".join(_describe_value(one["loc"], one["msg"], one["input"]) for one in error.errors())
            with user_facing_failures():
                raise InvalidRunConfig(
                    f"{problems} Nothing was done. Open this run in the launchpad, correct the config, and launch it."
                ) from None

    @property
    def only_previews(self) -> bool:
        """Whether a run with this config changes nothing, so that it need not run in shadow mode."""
        return False

    @model_validator(mode="before")
    @classmethod
    def _drop_cleared_fields(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if value is not None}


def _describe_value(location: Collection[int | str], requirement: str, value: object) -> str:
    """Return a sentence on a value of the config: "batch_id is -1 and must be greater than or equal to 0."."""
    name = ".".join(str(part) for part in location)
    must = re.sub(r"^\w+ should", "must", requirement)
    return f"{name} is {single_line(str(value), MAX_VALUE_CHARS)!r} and {must}."


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
    *, kind: str, shadow: ShadowRule | None, legacy_name: str | None = None
) -> Callable[[Callable[..., Any]], dg.JobDefinition]:
    """Make a job of the decorated function: one op, named and described as the function is.

    The function takes the context, its config (`config`) if it has any, and the resources that it uses. Its errors are
    shown as sentences, and an error that may pass is retried (see `user_facing_failures`).

    Args:
        kind: what the op works with, such as `postgres` or `s3`; the UI shows it.
        shadow: what a run decides in shadow mode, instead of calling the function; None if the function only reads:
            its database sessions are then read-only, and it gets no other resource. Also None if its policy says that
            the job is always live.
        legacy_name: the name of the job in the system that this project replaces, if there was one.
    """

    def build(function: Callable[..., Any]) -> dg.JobDefinition:
        name = function.__name__
        op = dg.op(name=name, retry_policy=RETRIES, tags={"kind": kind})(_live_or_in_shadow(name, function, shadow))
        is_always_live = job_policy(name).always_live
        if shadow is None and not is_always_live:
            _require_read_only(name, op.required_resource_keys)
        # The graph between the two needs its own name: Dagster does not allow an op and a graph with the same name.
        graph = dg.GraphDefinition(name=f"{name}_graph", node_defs=[op], description=op.description)
        # A single op needs no process besides the run's own.
        return graph.to_job(
            name=name,
            description=op.description,
            executor_def=in_process,
            **_job_options(
                name,
                legacy_name,
                {SHADOW_LABEL: "runs live, as always"} if is_always_live else _describe_shadow_mode(shadow),
            ),
        )

    return build


def job_asset(
    job: str,
    *,
    name: str,
    shadow: ShadowRule | None,
    partitions_def: dg.PartitionsDefinition[str] | None = None,
    **options: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make the asset `name` of the decorated function, as `single_op_job` makes a job of one.

    Args:
        job: the name of the job that materializes it.
        name: the asset's name.
        shadow: what a run decides in shadow mode, without materializing the asset; None if the function only reads.
        partitions_def: its days or weeks, if it has any. A backfill of several is one run, which must do each
            (`partitions`): a run for each would fill the queue.
        options: what else `dagster.asset` takes; the group, owners, tags and retries follow from the job.
    """

    def build(function: Callable[..., Any]) -> dg.AssetsDefinition:
        body = _live_or_in_shadow(job, function, shadow)
        if shadow is not None:
            # In shadow mode nothing is materialized. Dagster reads the type of the output from the annotation.
            returned = inspect.get_annotations(function, eval_str=True)["return"] | None
            body.__annotations__ = function.__annotations__ | {"return": returned}
            body.__signature__ = inspect.signature(function).replace(  # type: ignore[attr-defined]
                return_annotation=returned
            )
        asset: dg.AssetsDefinition = dg.asset(
            name=name,
            group_name=job_policy(job).group.value,
            retry_policy=RETRIES,
            output_required=shadow is None,
            metadata=_describe_shadow_mode(shadow),
            partitions_def=partitions_def,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions_def is not None else None,
            **owners_and_tags(job),
            **options,
        )(body)
        if shadow is None:
            _require_read_only(name, asset.required_resource_keys)
        return asset

    return build


def job_asset_check(
    asset: dg.AssetsDefinition, *, name: str, description: str, opens_alerts: bool = False
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make the check `name` of the asset from the decorated function, with retries and readable failures.

    A check does the same in shadow mode as live. Unless it opens and resolves alerts of its own, its database sessions
    are read-only. Of other resources it may use only what reads, such as the bank's status inquiries.
    """

    def build(function: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        @functools.wraps(function)
        def body(*positional: Any, **arguments: Any) -> dg.AssetCheckResult:
            with user_facing_failures():
                return function(*positional, **(arguments if opens_alerts else _with_read_only_database(arguments)))

        check: dg.AssetChecksDefinition = dg.asset_check(
            asset=asset,
            name=name,
            description=description,
            retry_policy=RETRIES,
            metadata={SHADOW_LABEL: "opens its alerts, as always"} if opens_alerts else _describe_shadow_mode(None),
        )(body)
        return check

    return build


def single_asset_job(
    name: str, asset: dg.AssetsDefinition, *, description: str, legacy_name: str | None = None
) -> UnresolvedAssetJobDefinition:
    """Return the job `name` that materializes one asset and runs all of its checks.

    Args:
        name: the job's name; `job_policies` has its severity, group and queue limits.
        asset: the asset to materialize.
        description: what a run does, in one or two sentences.
        legacy_name: the name of the job in the system that this project replaces, if there was one.
    """
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(asset),
        description=description,
        executor_def=in_process,
        **_job_options(name, legacy_name, asset.metadata_by_key.get(asset.key, {})),
    )


class _JobOptions(TypedDict):
    tags: dict[str, str]
    metadata: dict[str, Any]
    owners: list[str]


def _describe_shadow_mode(shadow: ShadowRule | None) -> dict[str, str]:
    return {SHADOW_LABEL: "only reads, as always" if shadow is None else "records its decisions, changes nothing else"}


def _job_options(name: str, legacy_name: str | None, shadow_metadata: Mapping[str, Any]) -> _JobOptions:
    policy = job_policy(name)
    return _JobOptions(
        tags=policy_tags(name),
        metadata={
            "Severity": policy.severity.value,
            **{label: text for label, text in shadow_metadata.items() if label == SHADOW_LABEL},
            **({"Legacy name": legacy_name} if legacy_name else {}),
        },
        owners=[policy.group.owner],
    )


def _live_or_in_shadow(job: str, function: Callable[..., Any], shadow: ShadowRule | None) -> Callable[..., Any]:
    """Return the body of a job's op or asset: `function`, or its shadow rule while the job is in shadow mode."""
    if shadow is not None and "database" not in inspect.signature(function).parameters:
        raise TypeError(
            f"{function.__name__} has a shadow rule, whose decisions need the resource `database`. Take it."
        )

    @functools.wraps(function)
    def body(context: OpContext, **arguments: Any) -> Any:
        with user_facing_failures():
            config = arguments.get("config")
            if shadow is None and not job_policy(job).always_live:
                arguments = _with_read_only_database(arguments)
            elif (
                shadow is not None
                and is_in_shadow_mode(job)
                and not (isinstance(config, JobConfig) and config.only_previews)
            ):
                return run_in_shadow_mode(context, job, shadow, arguments)
            return function(context, **arguments)

    return body


def _with_read_only_database(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: ReadOnlyDatabase() if isinstance(value, DatabaseResource) else value for name, value in arguments.items()
    }


def _require_read_only(name: str, required_resources: Collection[str]) -> None:
    """Raise `TypeError` if the op or asset `name`, which has no shadow rule, uses more than the database."""
    resources = sorted(set(required_resources) - {DatabaseResource.key, "io_manager"})
    if resources:
        raise TypeError(
            f"{name} uses {', '.join(resources)}, so it may change something outside the database. State in `shadow` "
            "what it does in shadow mode."
        )


def automation_status() -> tuple[dg.DefaultScheduleStatus, dg.DefaultSensorStatus]:
    """Return the default status of production schedules and sensors: STOPPED if DEV_ENV=1, otherwise RUNNING."""
    if get_settings().location.dev_env:
        return dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED
    return dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING
