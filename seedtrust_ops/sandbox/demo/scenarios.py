"""The demo's scenes: each is one batch and the trouble that it is going to meet, ordered from the bank beforehand.

What must happen while a batch is being sent (a kill, a second run, a halt) is in `stagehands`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.demo.environment import Stage
from seedtrust_ops.sandbox.seed.batches import NewBatch, Payable, Payment, draft_batch, payable_requests
from seedtrust_ops.sandbox.seed.names import PayeeAccount
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

LATE = 4.0
"""Twice as long as the client waits for an answer, in seconds."""
BAD_CHECK_DIGIT = PayeeAccount("044000025", "7300511864", "checking")


@dataclass(frozen=True)
class Scene:
    """A batch and what it meets."""

    name: str
    meets: str
    batch: NewBatch


@dataclass(frozen=True)
class _Plot:
    name: str
    meets: str
    size: int
    prepare: Callable[[Stage, Sequence[int]], None]
    method: str = "wire"
    priority: int = 0


def _fault(stage: Stage, transaction_id: int, kind: FaultKind, *, times: int = 1, seconds: float = 1.0) -> None:
    stage.bank.order_fault(
        kind, times=times, method="POST", idempotency_key=idempotency_key(transaction_id), seconds=seconds
    )


def _all_slow(stage: Stage, ids: Sequence[int]) -> None:
    # Slow but in time, so that there is a middle of the batch to be met in.
    for one in ids:
        _fault(stage, one, "answer_late_after_commit", seconds=1.4)


def _silences(stage: Stage, ids: Sequence[int]) -> None:
    _fault(stage, ids[0], "answer_late_after_commit", seconds=LATE)
    _fault(stage, ids[1], "answer_late_before_commit", seconds=LATE)
    _fault(stage, ids[2], "garbage")
    _fault(stage, ids[3], "slow_drip", seconds=1.0)


def _breaks(stage: Stage, ids: Sequence[int]) -> None:
    _fault(stage, ids[0], "reset_after_commit")
    _fault(stage, ids[1], "reset_before_commit")
    _fault(stage, ids[2], "error_after_commit")
    _fault(stage, ids[3], "error_before_commit")


def _wait_please(stage: Stage, ids: Sequence[int]) -> None:
    _fault(stage, ids[-1], "rate_limited", times=8, seconds=2)


def _wrong_key(stage: Stage, ids: Sequence[int]) -> None:
    _fault(stage, ids[1], "unauthorized")


def _refusals(stage: Stage, ids: Sequence[int]) -> None:
    _fault(stage, ids[0], "refuse")
    with stage.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction)
            .where(HuntingtonTransaction.id == ids[1])
            .values(routing_number=BAD_CHECK_DIGIT.routing_number)
        )


def _nothing(_stage: Stage, _ids: Sequence[int]) -> None:
    """Prepare nothing: what this batch meets comes while it is under way."""


# The higher the priority, the sooner a batch is sent: first those that will have to wait for something.
HALTED = _Plot("halt", "the halt switch, in the middle", 16, _all_slow, priority=90)
KILLED = _Plot("kill", "SIGKILL of its run, in the middle", 16, _all_slow, priority=80)
TWO_RUNS = _Plot("two runs", "429 with Retry-After, and a second run by hand", 6, _wait_please, priority=60)
REJECTED = _Plot("ach", "ACH: settles later, one is stopped by the bank", 5, _nothing, method="ach", priority=40)
BREAKS = _Plot("breaks", "resets and HTTP 503, after and before the commit", 7, _breaks, priority=50)
SILENCES = _Plot(
    "silences",
    "answers that come late (one after a commit, one before it), one unreadable, one dripping",
    7,
    _silences,
    priority=30,
)
WRONG_KEY = _Plot("401", "our API key refused for a while", 5, _wrong_key, priority=70)
REFUSALS = _Plot("refusals", "a 422, and a wrong routing number", 5, _refusals, priority=20)
SHORT = (HALTED, KILLED, SILENCES)
WHOLE = (HALTED, KILLED, WRONG_KEY, TWO_RUNS, BREAKS, REJECTED, SILENCES, REFUSALS)


def draft_scenes(stage: Stage, plots: Sequence[_Plot]) -> list[Scene]:
    """Draft each plot's batch and order its faults; none is queued yet."""
    with stage.sessions.begin() as session:
        payables = payable_requests(session, sum(plot.size for plot in plots))
        scenes = []
        for plot in plots:
            payments = [Payment(payables.pop(0), plot.method) for _ in range(plot.size)]
            batch = draft_batch(session, payments, stage.encrypt, priority=plot.priority)
            scenes.append(Scene(plot.name, plot.meets, batch))
    for plot, scene in zip(plots, scenes, strict=True):
        plot.prepare(stage, scene.batch.transaction_ids)
    return scenes


def leave_legacy_batch(stage: Stage) -> Scene:
    """Leave a batch as the legacy worker did: every transfer 'failed' for a timeout, though most went through."""
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with stage.sessions.begin() as session:
        payables = payable_requests(session, 4)
        batch = draft_batch(session, [Payment(one, "wire") for one in payables], stage.encrypt)
        _fail_as_legacy(session, batch, an_hour_ago)
    known: Sequence[tuple[int, Payable]] = list(zip(batch.transaction_ids, payables, strict=True))[:-1]
    for transaction_id, payable in known:
        stage.bank.plant_transfer(
            str(transaction_id), payable.amount_cents, method="wire", status="completed", created_at=an_hour_ago
        )
    return Scene("legacy", "the legacy worker's false failures; the bank never saw the last", batch)


def _fail_as_legacy(session: Session, batch: NewBatch, moment: datetime) -> None:
    session.execute(
        update(HuntingtonTransaction)
        .where(HuntingtonTransaction.batch_id == batch.batch_id)
        .values(status="failed", failure_reason="timeout: no answer from Huntington within 30 s", updated_at=moment)
    )
    session.execute(
        update(HuntingtonBatch)
        .where(HuntingtonBatch.id == batch.batch_id)
        .values(
            status="failed",
            created_at=moment,
            queued_at=moment,
            started_at=moment,
            finished_at=moment,
            error="4 of its transfers did not go through.",
        )
    )
