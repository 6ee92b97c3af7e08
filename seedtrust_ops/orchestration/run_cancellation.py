"""Whether a person canceled a run, as opposed to Dagster (`max_runtime`), this project (expiry), a shutdown or a crash.

It reads the run's events, because a starting run can overwrite a status, and does nothing about what it finds.
See docs/decisions/batch-runs.md.
"""

from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterEventType
from sqlalchemy.exc import SQLAlchemyError

from seedtrust_ops.errors import TransientError
from seedtrust_ops.orchestration.queue_expiration import has_expired

MAX_RUNTIME_MESSAGE = "Canceling due to exceeding maximum runtime"
"""How Dagster's run monitoring begins the message of its own cancellation, which it records before it ends the run."""


class RunHistoryUnreadable(TransientError):
    """Dagster's database could not be read, so it is not known whether a person canceled a run."""


def canceled_by_person_at(instance: dg.DagsterInstance, run_id: str) -> datetime | None:
    """Return when a person canceled the run (UTC), or None if nobody did.

    A person is anyone who cancels in the Dagster UI, with its API or with the client. A run that this instance does not
    know, because it was executed elsewhere or is deleted, was not canceled.

    Raises:
        RunHistoryUnreadable: if Dagster's database cannot be read.
    """
    try:
        # The first one: to end a run, the run monitoring and the launcher record a cancellation each.
        events = instance.get_records_for_run(
            run_id, of_type={DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED}, limit=1
        ).records
        run = instance.get_run_by_id(run_id) if events else None
    except SQLAlchemyError as error:
        raise RunHistoryUnreadable(
            f"Dagster's database could not be read ({type(error).__name__}), so it is not known whether a person "
            f"canceled run {run_id}. Its batch is not sent before that is known."
        ) from None
    if run is None or has_expired(run):
        return None
    entry = events[0].event_log_entry
    if entry.dagster_event is not None and (entry.dagster_event.message or "").startswith(MAX_RUNTIME_MESSAGE):
        return None
    return datetime.fromtimestamp(entry.timestamp, UTC)


def was_canceled_by_person(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a person canceled the run; raises as `canceled_by_person_at` does."""
    return canceled_by_person_at(instance, run_id) is not None
