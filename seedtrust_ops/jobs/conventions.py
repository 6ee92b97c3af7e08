"""What every job does alike: retries, failures that people can read, owners, and whether its automation starts on.

A job's own rule, schedule and words are in its file.
"""

import inspect
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import model_validator
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from seedtrust_ops.config import environment
from seedtrust_ops.errors import OperationsError
from seedtrust_ops.job_rules import LONGEST_TAG, labels_of, queue_tags, rules_of
from seedtrust_ops.jobs.executing import in_process
from seedtrust_ops.resources.database import application_url, unreachable
from seedtrust_ops.severity import Severity, run_tags

RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""Design, section 1: two retries, exponential from 2 seconds (Dagster waits 2, then 6)."""
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
RAISED_BY_A_TRIGGER = "P0001"
IDLE_IN_TRANSACTION = "25P03"
FRAMES_SHOWN = 30
KIND, MEANING, WHERE = "kind of trouble", "what it means", "where"
"""What a failure tells beside its sentence; `monitoring/` reads it from there."""

# Dagster calls the owners of jobs, schedules and sensors beta at every use; the pinned version has them.
warnings.filterwarnings("ignore", message="Parameter `owners`", category=dg.BetaWarning)


class LaunchConfig(dg.Config):
    """What a person may change of a launch; a field that is emptied in the launchpad has its default again."""

    @model_validator(mode="before")
    @classmethod
    def _without_emptied_fields(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None}


class Belonging(TypedDict):
    """Who answers for a schedule, a sensor or an asset, and the tags by which people find it."""

    owners: list[str]
    tags: dict[str, str]


def belonging_to(job_name: str) -> Belonging:
    """Return what a schedule, a sensor or an asset takes over from the job that it launches or is made by.

    A sensor that launches none gives its own name, and is as bad to miss as a job that the rules don't name.
    """
    return Belonging(owners=[rules_of(job_name).group.owner], tags=labels_of(job_name))


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
        owners=[rules_of(op.name).group.owner],
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
    rules = rules_of(name)
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(asset),
        description=description,
        executor_def=in_process,
        tags=labels_of(name) | run_tags(rules.severity) | queue_tags(name),
        metadata={"severity": rules.severity.value, "legacy name": legacy_name},
        owners=[rules.group.owner],
    )


@contextmanager
def failures_for_people() -> Iterator[None]:
    """Turn trouble into a `dagster.Failure` whose text is a sentence, retried only where that may help."""
    try:
        yield
    except OperationsError as error:
        raise _failure(str(error), error, retry=error.retry_may_help) from None
    except (OperationalError, InterfaceError) as error:
        trouble = unreachable(application_url(), error)
        raise _failure(str(trouble), trouble, retry=True) from error
    except DBAPIError as error:
        # `from None`: the driver's own text shows the rows that it was about, with all that is in them.
        raise _failure(_refusal(error), error, retry=_sqlstate(error) == IDLE_IN_TRANSACTION) from None


def automation_status() -> tuple[dg.DefaultScheduleStatus, dg.DefaultSensorStatus]:
    """Return how production schedules and sensors start: stopped where DEV_ENV=1, else running."""
    if environment().location.dev_env:
        return dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED
    return dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING


def _failure(sentence: str, error: Exception, *, retry: bool) -> dg.Failure:
    notes = getattr(error, "__notes__", [])
    return dg.Failure(
        description=" ".join([sentence, *notes]),
        metadata={
            KIND: type(error).__name__,
            MEANING: dg.MetadataValue.text(inspect.cleandoc(type(error).__doc__ or "").partition("\n")[0]),
            WHERE: dg.MetadataValue.text("".join(traceback.format_tb(error.__traceback__)[-FRAMES_SHOWN:])),
        },
        allow_retries=retry and not _last_try(),
    )


def _last_try() -> bool:
    """Return whether an op runs for the last time.

    Dagster would say of a failure that it may not retry again that its retries are exceeded, and hide the sentence
    behind that.
    """
    try:
        op = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return False
    return op.retry_number >= RETRIES.max_retries


def _refusal(error: DBAPIError) -> str:
    """Return what the database said of a statement, without the rows that it quotes."""
    sqlstate = _sqlstate(error)
    diagnosis = getattr(error.orig, "diag", None)
    said = getattr(diagnosis, "message_primary", None) or type(error.orig).__name__
    if sqlstate in (UNDEFINED_TABLE, UNDEFINED_COLUMN):
        return (
            f"The database lacks something that this job uses ({said}). Run `seedtrust-ops migrate`, which brings "
            "schema ops up to date and names what schema public lacks."
        )
    if sqlstate == IDLE_IN_TRANSACTION:
        return (
            "The database ended a transaction in which this job had been silent for too long: its process was frozen, "
            "or the machine is too busy. Nothing of that transaction was kept, and the next try or run does it again. "
            "If it goes on, see what keeps the machine busy."
        )
    if sqlstate == RAISED_BY_A_TRIGGER:
        said = "a trigger raised an exception; the database's log has its words"
    return (
        f"The database refused a statement of this job: {said} ({sqlstate}). Nothing of that transaction was kept. "
        "Either the data breaks a rule of the database or this program has a mistake; where it was is shown beside."
    )


def _sqlstate(error: DBAPIError) -> str | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate
