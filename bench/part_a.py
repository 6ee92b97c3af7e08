"""(a) From the commit of a queued batch to its first request at the bank."""

import random
import time
from datetime import datetime

from bench.contenders import Contender, NotHere, Working, huey_on_redis, huey_on_sqlite, ours, stock_best, stock_default
from bench.figures import Figure, Part, Promise, say
from bench.ground import Ground, database_server, ground, wait_for
from bench.stages import seconds_to_wake, stages_of
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key

OURS, STOCK = "ours", "stock Dagster, its defaults"
CONTENDERS: tuple[tuple[str, Contender, int], ...] = (
    (OURS, ours, 25),
    (STOCK, stock_default, 5),
    ("stock Dagster at its quickest", stock_best, 5),
    ("Huey on SQLite", huey_on_sqlite, 15),
    ("Huey on Redis", huey_on_redis, 15),
)
WAKINGS = 15
WAKES_WITHIN_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0
"""Between two batches a random time passes, so that they meet every loop at any point of its turn."""


def measure(_large: bool) -> Part:
    part = Part(
        "a",
        "From the commit of a queued batch to its first request at the bank",
        "One batch of one transaction at a time, queued at random moments; the clock runs from just before the commit "
        "to the entry in the bank's journal. Stock Dagster's sensor asks as often as Dagster lets it, every 5 s; left "
        "to its default it would ask every 30 s. Huey is told of a batch by whoever commits it, after that.",
    )
    seconds: dict[str, Figure] = {}
    with database_server() as server:
        for name, contender, rounds in CONTENDERS:
            say(f"(a) {name}")
            try:
                with ground(server, latency_ms=0) as there, contender(there) as working:
                    _one(there, working)
                    times = [_one(there, working) for _ in range(rounds)]
                    seconds[name] = part.add(Figure(name, [requested - queued for queued, requested in times]))
                    if name == OURS:
                        part.figures += stages_of(there, times)
            except NotHere as reason:
                part.left_out.append(f"{name}: {reason}")
        with ground(server, latency_ms=0) as there:
            woken = part.add(Figure("ours: the waiting sensor alone, to its return", seconds_to_wake(there, WAKINGS)))
    ours_, stock = seconds[OURS], seconds[STOCK]
    part.promises += [
        Promise("ours: median at most 1.0 s", f"{ours_.median:.2f} s", ours_.median <= 1.0),
        Promise("ours: p95 at most 2 s", f"{ours_.percentile(95):.2f} s", ours_.percentile(95) <= 2.0),
        Promise(
            "ours: at most 1/10 of stock Dagster's defaults",
            f"1/{stock.median / ours_.median:.0f}",
            ours_.median <= stock.median / 10,
        ),
        Promise(
            "the waiting sensor returns within 50 ms of a commit",
            f"{woken.median * 1_000:.0f} ms in the median, {max(woken.values) * 1_000:.0f} ms at most",
            woken.median <= WAKES_WITHIN_SECONDS,
        ),
    ]
    return part


def _one(there: Ground, working: Working) -> tuple[float, float]:
    """Queue one batch and return when that was committed, and when the bank first saw it (UNIX time)."""
    company = there.company
    batch_id = company.batch([1_000], status="draft", queued_at=None)
    (transaction,) = company.transactions(batch_id)
    time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
    began = there.queue([batch_id])
    working.tell(batch_id)
    wait_for(lambda: company.batch_row(batch_id).status in FINISHED, 120, f"batch {batch_id}; see {working.log}")
    key = idempotency_key(transaction.id)
    seen = min(
        datetime.fromisoformat(request["at"])
        for request in there.bank.control.requests()
        if request["idempotency_key"] == key
    )
    return began, seen.timestamp()
