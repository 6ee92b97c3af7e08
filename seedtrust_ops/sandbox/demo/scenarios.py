"""The demo's scenarios: each is one batch and the fault it is going to have, injected at the bank beforehand.

What has to happen while a batch is being sent (a halt, a kill, a second run) is in `disruptions`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.sandbox.bank.faults import FaultKind
from seedtrust_ops.sandbox.demo.environment import DemoEnvironment
from seedtrust_ops.sandbox.seed.batches import NewBatch, Payable, Payment, draft_batch, payable_requests
from seedtrust_ops.sandbox.seed.names import PayeeAccount
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

LATE_SECONDS = 4.0
"""Twice as long as the client waits for a response."""
BAD_CHECK_DIGIT = PayeeAccount("044000025", "7300511864", "checking")
LEGACY_NAME = "legacy"


@dataclass(frozen=True)
class Scenario:
    """A drafted batch and a description of its fault."""

    name: str
    fault: str
    batch: NewBatch


@dataclass(frozen=True)
class ScenarioSpec:
    """A scenario before its batch is drafted: its size, method and priority, and how to inject its fault."""

    name: str
    fault: str
    size: int
    inject: Callable[[DemoEnvironment, Sequence[int]], None]
    method: str = "wire"
    priority: int = 0


def _inject(
    env: DemoEnvironment, transaction_id: int, kind: FaultKind, *, times: int = 1, seconds: float = 1.0
) -> None:
    env.bank.inject_fault(
        kind, times=times, method="POST", idempotency_key=idempotency_key(transaction_id), seconds=seconds
    )


def _slow_responses(env: DemoEnvironment, ids: Sequence[int]) -> None:
    # Slow but within the timeout, so that there is time to disrupt the batch while it is being sent.
    for transaction_id in ids:
        _inject(env, transaction_id, "late_response_after_commit", seconds=1.4)


def _missing_responses(env: DemoEnvironment, ids: Sequence[int]) -> None:
    _inject(env, ids[0], "late_response_after_commit", seconds=LATE_SECONDS)
    _inject(env, ids[1], "late_response_before_commit", seconds=LATE_SECONDS)
    _inject(env, ids[2], "garbage")
    _inject(env, ids[3], "slow_drip", seconds=1.0)


def _connection_errors(env: DemoEnvironment, ids: Sequence[int]) -> None:
    _inject(env, ids[0], "reset_after_commit")
    _inject(env, ids[1], "reset_before_commit")
    _inject(env, ids[2], "error_after_commit")
    _inject(env, ids[3], "error_before_commit")


def _rate_limit(env: DemoEnvironment, ids: Sequence[int]) -> None:
    _inject(env, ids[-1], "rate_limited", times=8, seconds=2)


def _unauthorized(env: DemoEnvironment, ids: Sequence[int]) -> None:
    _inject(env, ids[1], "unauthorized")


def _refusals(env: DemoEnvironment, ids: Sequence[int]) -> None:
    env.bank.inject_fault("refuse", idempotency_key=idempotency_key(ids[0]), code="invalid_account")
    with env.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction)
            .where(HuntingtonTransaction.id == ids[1])
            .values(routing_number=BAD_CHECK_DIGIT.routing_number)
        )


def _no_fault(_env: DemoEnvironment, _ids: Sequence[int]) -> None:
    """Inject nothing: this batch is disrupted while it is being sent."""


# The higher the priority, the sooner a batch is sent: those that have to wait for something go first.
HALTED = ScenarioSpec("halt", "kill switch turned on while the batch is being sent", 16, _slow_responses, priority=90)
KILLED = ScenarioSpec("kill", "SIGKILL of its run while the batch is being sent", 16, _slow_responses, priority=80)
TWO_RUNS = ScenarioSpec(
    "two runs", "429 with Retry-After, and a second run launched by hand", 6, _rate_limit, priority=60
)
REJECTED = ScenarioSpec(
    "ach", "ACH that settles later; the bank rejects one transfer before that", 5, _no_fault, method="ach", priority=40
)
CONNECTION_ERRORS = ScenarioSpec(
    "connection errors",
    "connection resets and HTTP 503, before and after the bank's commit",
    7,
    _connection_errors,
    priority=50,
)
MISSING_RESPONSES = ScenarioSpec(
    "missing responses",
    "two timeouts (one before, one after the bank's commit), a garbled response, a byte-by-byte response",
    7,
    _missing_responses,
    priority=30,
)
UNAUTHORIZED = ScenarioSpec("401", "one 401: the bank rejects our API key for a moment", 5, _unauthorized, priority=70)
REFUSALS = ScenarioSpec("refusals", "one 422 refusal and one invalid routing number", 5, _refusals, priority=20)
UNFUNDED = ScenarioSpec("funds", "the funding account is empty, and is funded later", 4, _no_fault)
SHORT = (HALTED, KILLED, MISSING_RESPONSES, UNFUNDED)
ALL = (HALTED, KILLED, UNAUTHORIZED, TWO_RUNS, CONNECTION_ERRORS, REJECTED, MISSING_RESPONSES, REFUSALS, UNFUNDED)


def draft_scenarios(env: DemoEnvironment, specs: Sequence[ScenarioSpec]) -> list[Scenario]:
    """Draft the batch of each spec and inject its faults; no batch is queued yet."""
    with env.sessions.begin() as session:
        payables = payable_requests(session, sum(spec.size for spec in specs))
        scenarios = []
        for spec in specs:
            payments = [Payment(payables.pop(0), spec.method) for _ in range(spec.size)]
            batch = draft_batch(session, payments, env.encrypt, priority=spec.priority)
            scenarios.append(Scenario(spec.name, spec.fault, batch))
    for spec, scenario in zip(specs, scenarios, strict=True):
        spec.inject(env, scenario.batch.transaction_ids)
    return scenarios


def create_legacy_batch(env: DemoEnvironment) -> Scenario:
    """Create a batch as the legacy worker left it: every transfer 'failed' with a timeout, though most went through."""
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with env.sessions.begin() as session:
        payables = payable_requests(session, 4)
        batch = draft_batch(session, [Payment(payable, "wire") for payable in payables], env.encrypt)
        _fail_as_legacy(session, batch, an_hour_ago)
    at_bank: Sequence[tuple[int, Payable]] = list(zip(batch.transaction_ids, payables, strict=True))[:-1]
    for transaction_id, payable in at_bank:
        env.bank.insert_transfer(
            str(transaction_id), payable.amount_cents, method="wire", status="completed", created_at=an_hour_ago
        )
    return Scenario(LEGACY_NAME, "legacy worker marked 4 transfers failed by mistake; 3 of them are at the bank", batch)


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
