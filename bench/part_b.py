"""(b) Whole batches, from their commit to their end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import select
from sqlalchemy.engine import URL

from bench.contenders import Working, huey, ours
from bench.figures import Figure, Part, Promise, say
from bench.ground import Ground, database_server, ground, wait_for
from seedtrust_ops.domain.transfers.batch_lifecycle import FINISHED
from seedtrust_ops.tables import HuntingtonBatch

LATENCY_MS = 100
QUICK_LATENCY_MS = 50
CONCURRENCY = 16
ROUNDS = 5
ONCE_FROM_SECONDS = 60.0
LONGEST_SECONDS = 1_800.0
OURS, ONE_BY_ONE = "ours", "Huey, one by one"


@contextmanager
def _huey(there: Ground, *, workers: int) -> Iterator[Working]:
    with huey(there, str(there.folder / "huey.sqlite"), workers=workers, concurrency=1) as working:
        yield working


CONTENDERS = (
    (OURS, ours, 1),
    ("Huey, 16 workers", partial(_huey, workers=CONCURRENCY), CONCURRENCY),
    (ONE_BY_ONE, partial(_huey, workers=1), 1),
)


def measure(large: bool) -> Part:
    part = Part(
        "b",
        "Batches of 10 to 10,000 transactions, from their commit to their end",
        f"The bank takes {LATENCY_MS} ms to answer; its own limit is transactions x {LATENCY_MS} ms / {CONCURRENCY} "
        "requests at once. Huey makes the same domain call, one request at a time; for its 16 workers, which are "
        f"processes, the batch is cut into 16 batches. What takes Huey over {ONCE_FROM_SECONDS:g} s is measured "
        "once. The bank and PostgreSQL share the machine with whoever sends.",
    )
    counts = (10, 100, 1_000, *((10_000,) if large else ()))
    medians: dict[tuple[str, int], float] = {}
    with database_server() as server:
        _quick_bank(part, server)
        for name, contender, pieces in CONTENDERS:
            say(f"(b) {name}")
            with ground(server, latency_ms=LATENCY_MS) as there, contender(there) as working:
                _one(there, working, 10, pieces)
                for count in counts:
                    values = [_one(there, working, count, pieces)]
                    if name == OURS or values[0] < ONCE_FROM_SECONDS:
                        values += [_one(there, working, count, pieces) for _ in range(ROUNDS - 1)]
                    medians[name, count] = part.add(Figure(f"{name}, {count:,} transactions", values)).median
                    if name == OURS:
                        limit = _limit(count, LATENCY_MS)
                        part.figures.append(Figure(f"the bank's own limit, {count:,} transactions", [limit]))
                        _promise_pace(part, count, medians[name, count], limit)
    for count in counts[1:]:
        mine, theirs = medians[OURS, count], medians[ONE_BY_ONE, count]
        part.promises.append(
            Promise(f"{count:,}: faster than Huey one by one", f"{theirs / mine:.1f} times as fast", mine < theirs)
        )
    return part


def _limit(count: int, latency_ms: float) -> float:
    return count * latency_ms / 1_000 / CONCURRENCY


def _quick_bank(part: Part, server: URL) -> None:
    """Measure ours at a bank so quick that starting the run shows, and the machine's two cores are the limit."""
    count = 1_000
    limit = _limit(count, QUICK_LATENCY_MS)
    with ground(server, latency_ms=QUICK_LATENCY_MS) as there, ours(there) as working:
        _one(there, working, 10, 1)
        values = [_one(there, working, count, 1) for _ in range(ROUNDS)]
    note = f"the bank's own limit is {limit:.1f} s"
    part.add(Figure(f"ours, {count:,} transactions, a bank that takes {QUICK_LATENCY_MS} ms", values, note=note))


def _promise_pace(part: Part, count: int, seconds: float, limit: float) -> None:
    if count >= 1_000:
        times = seconds / limit
        part.promises.append(
            Promise(f"{count:,}: within 1.2 of the bank's own limit", f"{times:.2f} times the limit", times <= 1.2)
        )


def _one(there: Ground, working: Working, count: int, pieces: int) -> float:
    """Queue `count` transactions in so many batches and return the seconds until all of them have ended."""
    sizes = [size for number in range(pieces) if (size := count // pieces + (number < count % pieces))]
    batch_ids = [there.company.big_batch(size, status="draft", queued_at=None) for size in sizes]
    began = there.queue(batch_ids)
    for batch_id in batch_ids:
        working.tell(batch_id)
    wait_for(_all_ended(there, batch_ids), LONGEST_SECONDS, f"{count} transactions; see {working.log}", every=0.02)
    return time.time() - began


def _all_ended(there: Ground, batch_ids: list[int]) -> Callable[[], bool]:
    open_ones = select(HuntingtonBatch.id).where(
        HuntingtonBatch.id.in_(batch_ids), HuntingtonBatch.status.not_in(FINISHED)
    )

    def ended() -> bool:
        with there.company.sessions() as session:
            return session.scalar(open_ones.limit(1)) is None

    return ended
