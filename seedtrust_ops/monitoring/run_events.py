"""Reads, for many runs at once, the few events that JobRun needs: what was returned, retries, and what failed.

All runs of a page in one statement on Dagster's `event_logs`: its own ways of reading ask once a run.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._serdes import deserialize_value
from dagster_postgres import PostgresEventLogStorage
from dagster_shared.serdes.errors import DeserializationError
from sqlalchemy import ARRAY, Text, and_, bindparam, case, func, or_, select

from seedtrust_ops.tag_names import RETURNED

RETRY = DagsterEventType.STEP_UP_FOR_RETRY
RETURN = DagsterEventType.HANDLED_OUTPUT
FAILURES = (DagsterEventType.STEP_FAILURE, DagsterEventType.PIPELINE_FAILURE)
ENGINE = DagsterEventType.ENGINE_EVENT
"""Many a run, and of use only where one carries the error for which a failed run could not be started."""


@dataclass
class RunEvents:
    """What the events of one run say; each list in the order in which its events were stored."""

    retries: int = 0
    returned: dict[str, Any] = field(default_factory=dict)
    step_failures: list[dg.DagsterEvent] = field(default_factory=list)
    run_failures: list[dg.DagsterEvent] = field(default_factory=list)
    engine_errors: list[dg.DagsterEvent] = field(default_factory=list)

    def add(self, kind: str, event: dg.DagsterEvent | None) -> None:
        """Take note of an event of this kind; of a retry it is enough that there was one."""
        if kind == RETRY.value:
            self.retries += 1
        elif event is None:
            return
        elif kind == RETURN.value:
            shown = event.event_specific_data.metadata.get(RETURNED)  # type: ignore[union-attr]
            if isinstance(shown, dg.JsonMetadataValue) and isinstance(shown.data, Mapping):
                self.returned[event.step_key or ""] = shown.data.get("value")
        else:
            kinds = {FAILURES[0].value: self.step_failures, FAILURES[1].value: self.run_failures}
            kinds.get(kind, self.engine_errors).append(event)

    @property
    def result(self) -> Any:
        """What the job returned: of its one op that returned something, or by step where there are several."""
        if len(self.returned) > 1:
            return self.returned
        return next(iter(self.returned.values()), None)


def read_events(instance: dg.DagsterInstance, run_ids: Sequence[str], *, failed: Sequence[str]) -> dict[str, RunEvents]:
    """Return what the events of these runs say; `failed` are those of them that failed."""
    found = {run_id: RunEvents() for run_id in run_ids}
    if found:
        for run_id, kind, event in _stored(instance, run_ids, failed):
            found[run_id].add(kind, event)
    return found


def _stored(
    instance: dg.DagsterInstance, run_ids: Sequence[str], failed: Sequence[str]
) -> Iterator[tuple[str, str, dg.DagsterEvent | None]]:
    storage = instance.event_log_storage
    if not isinstance(storage, PostgresEventLogStorage):
        # A developer's instance without a DAGSTER_HOME keeps the events of each run in a file of its own.
        for run_id in run_ids:
            for one in storage.get_logs_for_run(run_id, of_type={RETRY, RETURN, *FAILURES}):
                yield run_id, one.get_dagster_event().event_type_value, one.dagster_event
        return
    events = SqlEventLogStorageTable.c
    kind = events.dagster_event_type
    with_error = and_(
        kind == ENGINE.value, events.run_id == _any_of(failed), events.event.contains('"SerializableErrorInfo"')
    )
    query = (
        select(events.run_id, kind, case((kind != RETRY.value, events.event)))
        .where(
            events.run_id == _any_of(run_ids),
            or_(kind.in_([RETRY.value, RETURN.value, *(failure.value for failure in FAILURES)]), with_error),
        )
        .order_by(events.id)
    )
    with storage.index_connection() as connection:
        for run_id, kind_of_event, event in connection.execute(query):
            yield run_id, kind_of_event, _read(event)


def _read(event: str | None) -> dg.DagsterEvent | None:
    """Return the event, None where it was left out or another version of Dagster wrote it in a way of its own."""
    if event is None:
        return None
    try:
        return deserialize_value(event, dg.EventLogEntry).dagster_event
    except DeserializationError:
        # One event that can't be read must not stop the mirror of all runs.
        return None


def _any_of(run_ids: Sequence[str]) -> Any:
    return func.any(bindparam(None, list(run_ids), type_=ARRAY(Text()), unique=True))
