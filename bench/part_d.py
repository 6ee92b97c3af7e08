"""(d) What doing nothing costs."""

import time

from sqlalchemy import create_engine, make_url, text

from bench.contenders import Working, ours, stock_default
from bench.figures import Figure, Part, Promise
from bench.ground import Ground, cpu_seconds, database_server, ground

MINUTES = 5
WARM_UP_SECONDS = 60.0
MINUTES_AN_HOUR = 60


def measure(_large: bool) -> Part:
    part = Part(
        "d",
        "CPU seconds an hour with nothing to do",
        "All processes but the database, every automation on, minute by minute, both side by side. Stock Dagster has "
        "one sensor and the two minute-ly jobs, which launch a run at each tick; ours has all schedules and sensors.",
    )
    with (
        database_server() as server,
        ground(server, latency_ms=0) as one,
        ground(server, latency_ms=0) as other,
        ours(one) as our_worker,
        stock_default(other, module="bench.stock.every_minute") as stock,
    ):
        time.sleep(WARM_UP_SECONDS)
        values: dict[str, list[float]] = {"ours": [], "stock Dagster": []}
        for _ in range(MINUTES):
            before = _spent(our_worker, stock)
            time.sleep(60)
            for name, was, now in zip(values, before, _spent(our_worker, stock), strict=True):
                values[name].append((now - was) * MINUTES_AN_HOUR)
        _require_runs(other)
    mine, theirs = (part.add(Figure(name, one, "CPU s/h")).median for name, one in values.items())
    part.promises.append(Promise("at most 1/5 of stock Dagster", f"1/{theirs / mine:.1f}", mine <= theirs / 5))
    return part


def _require_runs(stock: Ground) -> None:
    """Make sure that stock Dagster did launch its runs: a broken one would cost nothing."""
    engine = create_engine(make_url(stock.environment["DAGSTER_POSTGRES_URL"]).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        ended_well = connection.scalar(text("select count(*) from runs where status = 'SUCCESS'")) or 0
    engine.dispose()
    if ended_well < MINUTES:
        raise RuntimeError(f"Stock Dagster ended only {ended_well} runs well in {MINUTES} minutes; see its log.")


def _spent(*contenders: Working) -> list[float]:
    return [cpu_seconds(contender.process) for contender in contenders]
