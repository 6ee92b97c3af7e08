"""Part (d): the cost of having nothing to do."""

import time

from sqlalchemy import create_engine, make_url, text

from bench.environment import BenchEnvironment, cpu_seconds, open_environment, start_database_server
from bench.measurements import Measurement, Part, Target
from bench.systems import RunningSystem, our_worker, stock_default

MINUTES = 5
WARM_UP_SECONDS = 60.0
MINUTES_PER_HOUR = 60


def measure(_large: bool) -> Part:
    part = Part(
        "d",
        "CPU seconds per hour with nothing to do",
        "All processes except the database, with every automation on, measured minute by minute, both systems at the "
        "same time. Stock Dagster has one sensor and the two every-minute jobs, which launch a run at each tick; "
        "SeedTrust Ops has all schedules and sensors.",
    )
    with (
        start_database_server() as server,
        open_environment(server, latency_ms=0) as our_env,
        open_environment(server, latency_ms=0) as stock_env,
        our_worker(our_env) as ours,
        stock_default(stock_env, module="bench.stock.every_minute") as stock,
    ):
        time.sleep(WARM_UP_SECONDS)
        values: dict[str, list[float]] = {"SeedTrust Ops": [], "stock Dagster": []}
        for _ in range(MINUTES):
            before = _cpu_seconds(ours, stock)
            time.sleep(60)
            for name, was, now in zip(values, before, _cpu_seconds(ours, stock), strict=True):
                values[name].append((now - was) * MINUTES_PER_HOUR)
        _require_runs(stock_env)
    our_median, stock_median = (
        part.add(Measurement(name, hourly, "CPU s/h")).median for name, hourly in values.items()
    )
    part.targets.append(
        Target(
            "SeedTrust Ops: at most 1/5 of stock Dagster",
            f"1/{stock_median / our_median:.1f}",
            our_median <= stock_median / 5,
        )
    )
    return part


def _require_runs(stock_env: BenchEnvironment) -> None:
    """Make sure that stock Dagster launched its runs: if it were broken, it would cost nothing."""
    engine = create_engine(make_url(stock_env.variables["DAGSTER_POSTGRES_URL"]).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        succeeded = connection.scalar(text("select count(*) from runs where status = 'SUCCESS'")) or 0
    engine.dispose()
    if succeeded < MINUTES:
        raise RuntimeError(f"Only {succeeded} runs of stock Dagster succeeded in {MINUTES} minutes; see its log.")


def _cpu_seconds(*systems: RunningSystem) -> list[float]:
    return [cpu_seconds(system.process) for system in systems]
