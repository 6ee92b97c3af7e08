"""Part (b): whole batches, from commit to completion."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import select
from sqlalchemy.engine import URL

from bench.environment import BenchEnvironment, open_environment, start_database_server, wait_for
from bench.measurements import Measurement, Part, Target, log_line
from bench.systems import RunningSystem, huey, our_worker
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED_STATUSES
from seedtrust_ops.tables import HuntingtonBatch

LATENCY_MS = 100
FAST_LATENCY_MS = 50
CONCURRENCY = 16
ROUNDS = 5
MEASURE_ONCE_ABOVE_SECONDS = 60.0
MAX_WAIT_SECONDS = 1_800.0
OURS, SEQUENTIAL = "SeedTrust Ops", "Huey, sequential"


@contextmanager
def _huey(env: BenchEnvironment, *, workers: int) -> Iterator[RunningSystem]:
    with huey(env, str(env.folder / "huey.sqlite"), workers=workers, concurrency=1) as system:
        yield system


SYSTEMS = (
    (OURS, our_worker, 1),
    ("Huey, 16 workers", partial(_huey, workers=CONCURRENCY), CONCURRENCY),
    (SEQUENTIAL, partial(_huey, workers=1), 1),
)


def measure(large: bool) -> Part:
    part = Part(
        "b",
        "Batches of 10 to 10,000 transactions, from commit to completion",
        f"The bank takes {LATENCY_MS} ms to respond, so its limit is transactions x {LATENCY_MS} ms / {CONCURRENCY} "
        "concurrent requests. Huey makes the same domain call, one request at a time; for its 16 worker processes the "
        f"batch is split into 16 batches. What takes Huey over {MEASURE_ONCE_ABOVE_SECONDS:g} s is measured once. The "
        "bank and PostgreSQL run on the same machine as the sending system.",
    )
    counts = (10, 100, 1_000, *((10_000,) if large else ()))
    medians: dict[tuple[str, int], float] = {}
    with start_database_server() as server:
        _measure_fast_bank(part, server)
        for name, start_system, batch_count in SYSTEMS:
            log_line(f"(b) {name}")
            with open_environment(server, latency_ms=LATENCY_MS) as env, start_system(env) as system:
                _measure_batch(env, system, 10, batch_count)
                for count in counts:
                    values = [_measure_batch(env, system, count, batch_count)]
                    if name == OURS or values[0] < MEASURE_ONCE_ABOVE_SECONDS:
                        values += [_measure_batch(env, system, count, batch_count) for _ in range(ROUNDS - 1)]
                    medians[name, count] = part.add(Measurement(f"{name}, {count:,} transactions", values)).median
                    if name == OURS:
                        limit = _limit(count, LATENCY_MS)
                        part.measurements.append(Measurement(f"bank limit, {count:,} transactions", [limit]))
                        _add_limit_target(part, count, medians[name, count], limit)
    for count in counts[1:]:
        our_median, huey_median = medians[OURS, count], medians[SEQUENTIAL, count]
        part.targets.append(
            Target(
                f"{count:,}: faster than sequential Huey",
                f"{huey_median / our_median:.1f} times as fast",
                our_median < huey_median,
            )
        )
    return part


def _limit(count: int, latency_ms: float) -> float:
    return count * latency_ms / 1_000 / CONCURRENCY


def _measure_fast_bank(part: Part, server: URL) -> None:
    """Measure SeedTrust Ops with a bank so fast that the run's start is noticeable and the CPU is the limit."""
    count = 1_000
    limit = _limit(count, FAST_LATENCY_MS)
    with open_environment(server, latency_ms=FAST_LATENCY_MS) as env, our_worker(env) as system:
        _measure_batch(env, system, 10, 1)
        values = [_measure_batch(env, system, count, 1) for _ in range(ROUNDS)]
    note = f"bank limit: {limit:.1f} s"
    part.add(
        Measurement(f"SeedTrust Ops, {count:,} transactions, bank latency {FAST_LATENCY_MS} ms", values, note=note)
    )


def _add_limit_target(part: Part, count: int, seconds: float, limit: float) -> None:
    if count >= 1_000:
        times = seconds / limit
        part.targets.append(
            Target(f"{count:,}: at most 1.2 times the bank limit", f"{times:.2f} times the limit", times <= 1.2)
        )


def _measure_batch(env: BenchEnvironment, system: RunningSystem, count: int, batch_count: int) -> float:
    """Queue `count` transactions in `batch_count` batches; return the seconds until all batches have finished."""
    sizes = [size for number in range(batch_count) if (size := count // batch_count + (number < count % batch_count))]
    batch_ids = [env.company.big_batch(size, status="draft", queued_at=None) for size in sizes]
    began = env.queue(batch_ids)
    for batch_id in batch_ids:
        system.notify(batch_id)
    wait_for(_all_finished(env, batch_ids), MAX_WAIT_SECONDS, f"{count} transactions; see {system.log}", every=0.02)
    return time.time() - began


def _all_finished(env: BenchEnvironment, batch_ids: list[int]) -> Callable[[], bool]:
    unfinished = select(HuntingtonBatch.id).where(
        HuntingtonBatch.id.in_(batch_ids), HuntingtonBatch.status.not_in(FINISHED_STATUSES)
    )

    def are_finished() -> bool:
        with env.company.sessions() as session:
            return session.scalar(unfinished.limit(1)) is None

    return are_finished
