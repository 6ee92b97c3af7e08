"""Part (a): from the commit of a queued batch to its first request at the bank."""

import random
import time
from datetime import datetime

from bench.environment import BenchEnvironment, open_environment, start_database_server, wait_for
from bench.launch_stages import measure_sensor_delays, measure_stages
from bench.measurements import Measurement, Part, Target, log_line
from bench.systems import (
    MissingDependency,
    RunningSystem,
    SystemFactory,
    huey_on_redis,
    huey_on_sqlite,
    our_worker,
    stock_default,
    stock_fastest,
)
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED_STATUSES

OURS, STOCK = "SeedTrust Ops", "stock Dagster, default settings"
SYSTEMS: tuple[tuple[str, SystemFactory, int], ...] = (
    (OURS, our_worker, 25),
    (STOCK, stock_default, 5),
    ("stock Dagster, fastest settings", stock_fastest, 5),
    ("Huey on SQLite", huey_on_sqlite, 15),
    ("Huey on Redis", huey_on_redis, 15),
)
SENSOR_ROUNDS = 15
MAX_SENSOR_DELAY_SECONDS = 0.05
MAX_PAUSE_SECONDS = 5.0
"""A random pause of up to this length precedes each batch, so that it meets polling loops at any point."""


def measure(_large: bool) -> Part:
    part = Part(
        "a",
        "From the commit of a queued batch to its first request at the bank",
        "One batch of one transaction at a time, queued at random times; measured from just before the commit to the "
        "entry in the bank's request log. Stock Dagster's sensor polls as often as Dagster allows, every 5 s; its "
        "default is every 30 s. Huey is notified by the code that commits the batch, right after the commit.",
    )
    results: dict[str, Measurement] = {}
    with start_database_server() as server:
        for name, start_system, rounds in SYSTEMS:
            log_line(f"(a) {name}")
            try:
                with open_environment(server, latency_ms=0) as env, start_system(env) as system:
                    _run_batch(env, system)
                    times = [_run_batch(env, system) for _ in range(rounds)]
                    results[name] = part.add(Measurement(name, [requested - queued for queued, requested in times]))
                    if name == OURS:
                        part.measurements += measure_stages(env, times)
            except MissingDependency as reason:
                part.skipped.append(f"{name}: {reason}")
        with open_environment(server, latency_ms=0) as env:
            sensor_delays = part.add(
                Measurement("SeedTrust Ops, long-polling sensor alone", measure_sensor_delays(env, SENSOR_ROUNDS))
            )
    ours, stock = results[OURS], results[STOCK]
    part.targets += [
        Target("SeedTrust Ops: median at most 1.0 s", f"{ours.median:.2f} s", ours.median <= 1.0),
        Target("SeedTrust Ops: p95 at most 2 s", f"{ours.percentile(95):.2f} s", ours.percentile(95) <= 2.0),
        Target(
            "SeedTrust Ops: at most 1/10 of stock Dagster with default settings",
            f"1/{stock.median / ours.median:.0f}",
            ours.median <= stock.median / 10,
        ),
        Target(
            "long-polling sensor: returns within 50 ms of a commit",
            f"median {sensor_delays.median * 1_000:.0f} ms, maximum {max(sensor_delays.values) * 1_000:.0f} ms",
            sensor_delays.median <= MAX_SENSOR_DELAY_SECONDS,
        ),
    ]
    return part


def _run_batch(env: BenchEnvironment, system: RunningSystem) -> tuple[float, float]:
    """Queue one batch; return when it was committed and when the bank first received it (UNIX time)."""
    company = env.company
    batch_id = company.batch([1_000], status="draft", queued_at=None)
    (transaction,) = company.transactions(batch_id)
    time.sleep(random.uniform(0, MAX_PAUSE_SECONDS))
    began = env.queue([batch_id])
    system.notify(batch_id)
    wait_for(
        lambda: company.batch_row(batch_id).status in FINISHED_STATUSES, 120, f"batch {batch_id}; see {system.log}"
    )
    key = idempotency_key(transaction.id)
    seen = min(
        datetime.fromisoformat(request["at"])
        for request in env.bank.control.requests()
        if request["idempotency_key"] == key
    )
    return began, seen.timestamp()
