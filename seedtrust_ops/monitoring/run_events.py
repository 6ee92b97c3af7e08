"""Reads, for many runs at once, the events that JobRun needs: return values, retries and failures.

One statement on Dagster's `event_logs` covers a page of runs; Dagster's own API needs one query per run.
See docs/decisions/job-run-mirror.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster_postgres import PostgresEventLogStorage
from sqlalchemy import ARRAY, Text, and_, bindparam, case, func, or_, select

from seedtrust_ops.dagster_internals import (
    EVENT_PAGES,
    DeserializationError,
    SqlEventLogStorageTable,
    is_available,
)
from seedtrust_ops.tag_names import RETURN_VALUE_LABEL

RETRY = DagsterEventType.STEP_UP_FOR_RETRY
RETURN = DagsterEventType.HANDLED_OUTPUT
FAILURES = (DagsterEventType.STEP_FAILURE, DagsterEventType.PIPELINE_FAILURE)
ENGINE = DagsterEventType.ENGINE_EVENT
"""There are many per run; they matter only if one has the error for which a failed run could not be launched."""


@dataclass
class RunEvents:
    """The relevant events of one run; each list is in storage order."""

    retries: int = 0
    returned: dict[str, Any] = field(default_factory=dict)
    step_failures: list[dg.DagsterEvent] = field(default_factory=list)
    run_failures: list[dg.DagsterEvent] = field(default_factory=list)
    engine_errors: list[dg.DagsterEvent] = field(default_factory=list)

    def add(self, event_type: str, event: dg.DagsterEvent | None) -> None:
        """Add an event of this type; `event` is None for a retry, which is only counted."""
        if event_type == RETRY.value:
            self.retries += 1
        elif event is None:
            return
        elif event_type == RETURN.value:
            metadata = event.event_specific_data.metadata.get(RETURN_VALUE_LABEL)  # type: ignore[union-attr]
            if isinstance(metadata, dg.JsonMetadataValue) and isinstance(metadata.data, Mapping):
                self.returned[event.step_key or ""] = metadata.data.get("value")
        else:
            lists = {FAILURES[0].value: self.step_failures, FAILURES[1].value: self.run_failures}
            lists.get(event_type, self.engine_errors).append(event)

    @property
    def result(self) -> Any:
        """The job's return value: of the one op that returned something, or by step if several did."""
        if len(self.returned) > 1:
            return self.returned
        return next(iter(self.returned.values()), None)


def read_events(instance: dg.DagsterInstance, run_ids: Sequence[str], *, failed: Sequence[str]) -> dict[str, RunEvents]:
    """Return the events of these runs by run id; `failed` are the ids of those that failed."""
    found = {run_id: RunEvents() for run_id in run_ids}
    if found:
        for run_id, event_type, event in _query_events(instance, run_ids, failed):
            found[run_id].add(event_type, event)
    return found


def _query_events(
    instance: dg.DagsterInstance, run_ids: Sequence[str], failed: Sequence[str]
) -> Iterator[tuple[str, str, dg.DagsterEvent | None]]:
    storage = instance.event_log_storage
    if not isinstance(storage, PostgresEventLogStorage) or not is_available(EVENT_PAGES):
        # A developer's instance without a DAGSTER_HOME stores the events of each run in its own SQLite file.
        for run_id in run_ids:
            for entry in storage.get_logs_for_run(run_id, of_type={RETRY, RETURN, *FAILURES}):
                yield run_id, entry.get_dagster_event().event_type_value, entry.dagster_event
        return
    events = SqlEventLogStorageTable.c
    event_type = events.dagster_event_type
    with_error = and_(
        event_type == ENGINE.value,
        events.run_id == _equals_any(failed),
        events.event.contains('"SerializableErrorInfo"'),
    )
    query = (
        select(events.run_id, event_type, case((event_type != RETRY.value, events.event)))
        .where(
            events.run_id == _equals_any(run_ids),
            or_(event_type.in_([RETRY.value, RETURN.value, *(failure.value for failure in FAILURES)]), with_error),
        )
        .order_by(events.id)
    )
    with storage.index_connection() as connection:
        for run_id, type_of_event, serialized in connection.execute(query):
            yield run_id, type_of_event, _deserialize(serialized)


def _deserialize(serialized: str | None) -> dg.DagsterEvent | None:
    """Return the event; None if it was left out, or was written by an incompatible version of Dagster."""
    if serialized is None:
        return None
    try:
        return dg.deserialize_value(serialized, dg.EventLogEntry).dagster_event
    except DeserializationError:
        # One unreadable event must not stop the mirror.
        return None


def _equals_any(run_ids: Sequence[str]) -> Any:
    return func.any(bindparam(None, list(run_ids), type_=ARRAY(Text()), unique=True))
