"""What every job does alike: retries, failures that people can read, and whether its automation starts switched on.

A job's own rule, schedule and words are in its file.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError

from seedtrust_ops.config import environment
from seedtrust_ops.errors import OperationsError
from seedtrust_ops.resources.database import application_url, unreachable
from seedtrust_ops.severity import Severity, run_tags

RETRIES = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""Design, section 1: two retries, exponential from 2 seconds (Dagster waits 2, then 6)."""
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"


def single_op_job(
    op: dg.OpDefinition, severity: Severity, *, legacy_name: str, longest_seconds: int | None = None
) -> dg.JobDefinition:
    """Return the job that runs `op` and bears its name, so that people write the name once in a run's config.

    Args:
        op: the job's one op; its description is the job's.
        severity: how bad it is when the job stops.
        legacy_name: what the job was called in the systems that this one replaces.
        longest_seconds: after so long Dagster ends a run of it; None where it may take its time.
    """
    # The graph between the two needs a name of its own: Dagster allows no op and graph of one name.
    graph = dg.GraphDefinition(name=f"{op.name}_graph", node_defs=[op], description=op.description)
    limit = {} if longest_seconds is None else {"dagster/max_runtime": str(longest_seconds)}
    return graph.to_job(
        name=op.name,
        description=op.description,
        # One op needs no process of its own beside the run's.
        executor_def=dg.in_process_executor,
        tags=run_tags(severity) | limit,
        metadata={"severity": severity.value, "legacy name": legacy_name},
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
    except ProgrammingError as error:
        if _sqlstate(error) not in (UNDEFINED_TABLE, UNDEFINED_COLUMN):
            raise
        missing = str(error.orig).splitlines()[0]
        raise _failure(
            f"The database lacks something that this job uses ({missing}). Run `seedtrust-ops migrate`, which brings "
            "schema ops up to date and names what schema public lacks.",
            error,
            retry=False,
        ) from error


def automation_status() -> tuple[dg.DefaultScheduleStatus, dg.DefaultSensorStatus]:
    """Return how production schedules and sensors start: stopped where DEV_ENV=1, else running."""
    if environment().location.dev_env:
        return dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED
    return dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING


def _failure(sentence: str, error: Exception, *, retry: bool) -> dg.Failure:
    notes = getattr(error, "__notes__", [])
    return dg.Failure(
        description=" ".join([sentence, *notes]),
        metadata={"kind of trouble": type(error).__name__},
        allow_retries=retry,
    )


def _sqlstate(error: DBAPIError) -> str | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate
