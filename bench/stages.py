"""Where our time from a commit to the first request goes: stage by stage as Dagster's history has it, and the sensor's.

For part (a); the whole time is measured there.
"""

import random
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from sqlalchemy import text

from bench.figures import Figure
from bench.ground import REPOSITORY, Ground
from bench.looking_in import instance_at
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.jobs.process_huntington_batch import BATCH_TAG, huntington_batch_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource

STAGES = (
    ("commit to run created", None),
    ("run created to queued", dg.DagsterEventType.RUN_ENQUEUED),
    ("queued to its turn", dg.DagsterEventType.RUN_STARTING),
    ("turn to run started", dg.DagsterEventType.RUN_START),
    ("run started to op started", dg.DagsterEventType.STEP_START),
)
LAST_STAGE = "op started to first request"
LISTENS_AFTER_SECONDS = 0.5


def stages_of(there: Ground, times: Sequence[tuple[float, float]]) -> list[Figure]:
    """Return a figure for each stage of the latest runs, whose commits and first requests `times` holds (UNIX time)."""
    stages: dict[str, list[float]] = {name: [] for name, _ in STAGES}
    stages[LAST_STAGE] = []
    with instance_at(there, there.folder / "ours") as instance:
        runs = sorted((one for one in instance.get_run_records() if BATCH_TAG in one.dagster_run.tags), key=_batch)
        for record, (queued, requested) in zip(runs[-len(times) :], times, strict=True):
            before = queued
            happened = {
                entry.dagster_event.event_type: entry.timestamp
                for entry in reversed(instance.all_logs(record.dagster_run.run_id))
                if entry.dagster_event is not None
            }
            for name, event in STAGES:
                at = record.create_timestamp.timestamp() if event is None else happened[event]
                stages[name].append(at - before)
                before = at
            stages[LAST_STAGE].append(requested - before)
    return [Figure(f"ours, of it: {name}", values) for name, values in stages.items()]


def _batch(record: dg.RunRecord) -> int:
    return int(record.dagster_run.tags[BATCH_TAG])


def seconds_to_wake(there: Ground, count: int) -> list[float]:
    """Return how long our sensor, waiting in the database, took to return after a batch was queued, again and again."""
    home = there.folder / "sensor"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    with instance_at(there, home) as instance, ThreadPoolExecutor(1) as pool:
        try:
            return [_to_wake(there, instance, pool) for _ in range(count)]
        finally:
            application_engine().dispose()
            application_engine.cache_clear()


def _to_wake(there: Ground, instance: dg.DagsterInstance, pool: ThreadPoolExecutor) -> float:
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})

    def tick() -> float:
        asked_for = huntington_batch_sensor(context)
        returned_at = time.time()
        assert isinstance(asked_for, dg.SensorResult), f"the sensor found no batch: {asked_for}"
        return returned_at

    waiting = pool.submit(tick)
    time.sleep(LISTENS_AFTER_SECONDS + random.random())
    batch_id = there.company.batch([1_000], status="draft", queued_at=None)
    queued_at = there.queue([batch_id])
    seconds = waiting.result() - queued_at
    with there.company.sessions.begin() as session:
        session.execute(text("update huntington_batches set status = 'held' where id = :id"), {"id": batch_id})
    return seconds
