"""(a) From the commit of a queued batch to its first request at the bank."""

import random
import time
from datetime import UTC, datetime

from sqlalchemy import text

from bench.contenders import Contender, NotHere, Working, huey_on_redis, huey_on_sqlite, ours, stock_best, stock_default
from bench.figures import Figure, Part, Promise, say
from bench.ground import Ground, database_server, ground, wait_for
from seedtrust_ops.domain.transfers.bank import idempotency_key
from seedtrust_ops.domain.transfers.batches import FINISHED

CONTENDERS: tuple[tuple[str, Contender, int], ...] = (
    ("ours", ours, 40),
    ("stock Dagster, its defaults", stock_default, 6),
    ("stock Dagster at its quickest", stock_best, 8),
    ("Huey on SQLite", huey_on_sqlite, 20),
    ("Huey on Redis", huey_on_redis, 20),
)
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
                    seconds[name] = part.add(Figure(name, [_one(there, working) for _ in range(rounds)]))
            except NotHere as reason:
                part.left_out.append(f"{name}: {reason}")
    ours_, stock = seconds["ours"], seconds["stock Dagster, its defaults"]
    part.promises += [
        Promise("ours: median at most 1.0 s", f"{ours_.median:.2f} s", ours_.median <= 1.0),
        Promise("ours: p95 at most 2 s", f"{ours_.percentile(95):.2f} s", ours_.percentile(95) <= 2.0),
        Promise(
            "ours: at most 1/10 of stock Dagster's defaults",
            f"1/{stock.median / ours_.median:.0f}",
            ours_.median <= stock.median / 10,
        ),
    ]
    return part


def _one(there: Ground, working: Working) -> float:
    """Queue one batch and return the seconds from its commit to the bank's first sight of it."""
    company = there.company
    batch_id = company.batch([1_000], status="draft", queued_at=None)
    (transaction,) = company.transactions(batch_id)
    time.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))
    with company.sessions() as session:
        session.execute(
            text("update huntington_batches set status = 'queued', queued_at = now() where id = :id"), {"id": batch_id}
        )
        began = datetime.now(UTC)
        session.commit()
    working.tell(batch_id)
    wait_for(lambda: company.batch_row(batch_id).status in FINISHED, 120, f"batch {batch_id}; see {working.log}")
    key = idempotency_key(transaction.id)
    seen = min(
        datetime.fromisoformat(request["at"])
        for request in there.bank.control.requests()
        if request["idempotency_key"] == key
    )
    return (seen - began).total_seconds()
