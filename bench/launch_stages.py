"""Splits our time from a batch's commit to its first bank request into stages, using Dagster's event log.

Also measures the long-polling sensor alone. For part (a), `batch_latency`, which measures the total.
"""

import random
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from sqlalchemy import text

from bench.dagster_access import load_instance
from bench.environment import REPOSITORY, BenchEnvironment
from bench.measurements import Measurement
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.tag_names import BATCH_TAG

STAGES = (
    ("commit to run created", None),
    ("run created to queued", dg.DagsterEventType.RUN_ENQUEUED),
    ("queued to dequeued", dg.DagsterEventType.RUN_STARTING),
    ("dequeued to run started", dg.DagsterEventType.RUN_START),
    ("run started to op started", dg.DagsterEventType.STEP_START),
)
LAST_STAGE = "op started to first request"
SENSOR_START_SECONDS = 0.5


def measure_stages(env: BenchEnvironment, times: Sequence[tuple[float, float]]) -> list[Measurement]:
    """Return a measurement per stage of the latest runs; `times` are their commit and first request (UNIX time)."""
    stages: dict[str, list[float]] = {name: [] for name, _ in STAGES}
    stages[LAST_STAGE] = []
    with load_instance(env, env.folder / "seedtrust") as instance:
        runs = sorted(
            (run_record for run_record in instance.get_run_records() if BATCH_TAG in run_record.dagster_run.tags),
            key=_batch,
        )
        for record, (queued, requested) in zip(runs[-len(times) :], times, strict=True):
            before = queued
            event_times = {
                entry.dagster_event.event_type: entry.timestamp
                for entry in reversed(instance.all_logs(record.dagster_run.run_id))
                if entry.dagster_event is not None
            }
            for name, event in STAGES:
                at = record.create_timestamp.timestamp() if event is None else event_times[event]
                stages[name].append(at - before)
                before = at
            stages[LAST_STAGE].append(requested - before)
    return [Measurement(f"SeedTrust Ops, stage: {name}", values) for name, values in stages.items()]


def _batch(record: dg.RunRecord) -> int:
    return int(record.dagster_run.tags[BATCH_TAG])


def measure_sensor_delays(env: BenchEnvironment, count: int) -> list[float]:
    """Return the seconds that our long-polling sensor took to return after a batch was queued, `count` times."""
    home = env.folder / "sensor"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    with load_instance(env, home) as instance, ThreadPoolExecutor(1) as pool:
        return [_measure_sensor_delay(env, instance, pool) for _ in range(count)]


def _measure_sensor_delay(env: BenchEnvironment, instance: dg.DagsterInstance, pool: ThreadPoolExecutor) -> float:
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})

    def tick() -> float:
        result = huntington_batch_sensor(context)
        returned_at = time.time()
        assert isinstance(result, dg.SensorResult), f"The sensor found no batch: {result}"
        return returned_at

    waiting = pool.submit(tick)
    time.sleep(SENSOR_START_SECONDS + random.random())
    batch_id = env.company.batch([1_000], status="draft", queued_at=None)
    queued_at = env.queue([batch_id])
    seconds = waiting.result() - queued_at
    with env.company.sessions.begin() as session:
        session.execute(text("update huntington_batches set status = 'held' where id = :id"), {"id": batch_id})
    return seconds
