"""Drives transfers through a state, a person's act and the bank's next answer, and says what becomes of each.

The vocabulary (states, acts, answers) is that of docs/transfer-states.md, which `test_transfer_states` holds to it. The
transfers of one table share a database and a bank, because nothing of one may depend on another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.health.batches import batch_held, batch_stuck, transfers_halted
from seedtrust_ops.domain.health.ledger import ledger_mismatch
from seedtrust_ops.domain.transfers import kill_switch
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.bank_feed import OVERLAP
from seedtrust_ops.domain.transfers.batch_lifecycle import release_batch
from seedtrust_ops.domain.transfers.settlement import SettleAs, Settlement, ask_bank, known_bank_id, settle
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.ports.bank import TransferOrder, TransferResponse
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.tables import (
    BankFeedCursor,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    LedgerCorrection,
    LedgerEntry,
    TransferEvidence,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company

Row = HuntingtonTransaction | DisbursementRequest | HuntingtonBatch
CENTS = 5_000
GRACE_SECONDS = 600.0


@dataclass
class Payment:
    """A transfer with a case, a request, a batch and a run of its own."""

    worker: Worker
    case: BuiltCase
    batch_id: int
    request_id: int
    transaction_id: int
    posts: int = 0
    """How often it had been sent before the person acted."""
    request_status: str | None = "approved"
    """The status of its request before a run, the bank or a settlement changed it."""
    refusal: str | None = None
    """Why the act was refused, if it was."""

    @property
    def company(self) -> Company:
        return self.worker.company

    @property
    def key(self) -> str:
        return idempotency_key(self.transaction_id)

    def set_transaction(self, **values: object) -> None:
        self._change(HuntingtonTransaction, self.transaction_id, values)

    def set_request(self, **values: object) -> None:
        self._change(DisbursementRequest, self.request_id, values)

    def set_batch(self, **values: object) -> None:
        self._change(HuntingtonBatch, self.batch_id, values)

    def _change(self, table: type[Row], number: int, values: Mapping[str, object]) -> None:
        with self.company.sessions.begin() as session:
            session.execute(update(table).where(table.id == number).values(**values))

    def process(self) -> None:
        """Process its batch, as the sensor does if that is queued; what a run reports to people is ignored."""
        with suppress(SeedTrustError, ExceptionGroup):
            self.worker.process(self.batch_id)


def create_payment(worker: Worker, number: int, companions: int = 0) -> Payment:
    """Create a payment in a queued batch, behind `companions` other payments."""
    company = worker.company
    case = company.case(balance_cents=100 * CENTS)
    batch_id = company.batch(case=case)
    for _ in range(companions):
        company.transaction(batch_id, company.request(case, CENTS), CENTS, method="ach")
    request_id = company.request(case, CENTS)
    transaction_id = company.transaction(batch_id, request_id, CENTS, method="ach")
    return Payment(replace(worker, name=f"run-{number}"), case, batch_id, request_id, transaction_id)


# What people do. ------------------------------------------------------------------------------------------------------


def delete_request(payment: Payment) -> None:
    payment.set_transaction(disbursement_request_id=None)
    with payment.company.sessions.begin() as session:
        session.execute(delete(DisbursementRequest).where(DisbursementRequest.id == payment.request_id))


def delete_transaction(payment: Payment) -> None:
    with payment.company.sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction).where(HuntingtonTransaction.id == payment.transaction_id))


def assign_to_another_request(payment: Payment) -> None:
    payment.set_transaction(disbursement_request_id=payment.company.request(payment.case, CENTS))


def move_to_another_batch(payment: Payment) -> None:
    payment.set_transaction(batch_id=payment.company.batch(case=payment.case, status="draft"))


def set_batch(status: str) -> Callable[[Payment], None]:
    return lambda payment: payment.set_batch(status=status)


def set_request(status: str) -> Callable[[Payment], None]:
    return lambda payment: payment.set_request(status=status)


def set_transaction(status: str) -> Callable[[Payment], None]:
    return lambda payment: payment.set_transaction(status=status, updated_at=func.clock_timestamp())


def terminate_run(payment: Payment) -> None:
    payment.worker.canceled_runs.add(payment.worker.name)


def release(payment: Payment) -> None:
    with payment.company.sessions.begin() as session:
        release_batch(session, payment.batch_id)


def settle_as(status: SettleAs, *, contradict_bank: bool = False) -> Callable[[Payment], None]:
    def act(payment: Payment) -> None:
        sessions = payment.company.sessions
        with sessions() as session:
            known = known_bank_id(session, payment.transaction_id)
        answer = ask_bank(payment.worker.open_bank, payment.transaction_id, known)
        decision = Settlement(payment.transaction_id, status, "as Huntington says", "ana", contradict_bank)
        with sessions.begin() as session:
            attest(session, Operator("ana"), "as Huntington says")
            settle(session, decision, answer)

    return act


def halt(payment: Payment) -> None:
    with payment.company.sessions.begin() as session:
        kill_switch.halt(session, "somebody is paid twice", "ana")


def resume(payment: Payment) -> None:
    with payment.company.sessions.begin() as session:
        kill_switch.resume(session)


def halt_and_resume(payment: Payment) -> None:
    halt(payment)
    payment.process()
    resume(payment)


Act = Callable[[Payment], None]
ACTS: dict[str, Act] = {
    "denies the request": set_request("denied"),
    "cancels the request": set_request("cancelled"),
    "sets the request to `pending`": set_request("pending"),
    "changes the request's amount": lambda payment: payment.set_request(amount_cents=CENTS + 1),
    "deletes the request": delete_request,
    "sets the transaction to `pending`": set_transaction("pending"),
    "sets the transaction to `processing`": set_transaction("processing"),
    "sets the transaction to `submitted`": set_transaction("submitted"),
    "sets the transaction to `completed`": set_transaction("completed"),
    "sets the transaction to `failed`": set_transaction("failed"),
    "sets the transaction to `returned`": set_transaction("returned"),
    "changes its amount": lambda payment: payment.set_transaction(amount_cents=CENTS + 1),
    "changes its payee": lambda payment: payment.set_transaction(payee_name="Somebody Else"),
    "assigns it to another request": assign_to_another_request,
    "moves it to another batch": move_to_another_batch,
    "deletes it": delete_transaction,
    "holds the batch": set_batch("held"),
    "sets the batch to `draft`": set_batch("draft"),
    "queues the batch again": set_batch("queued"),
    "terminates the run": terminate_run,
    "releases the batch": release,
    "settles it as completed": settle_as(SettleAs.COMPLETED),
    "settles it as failed": settle_as(SettleAs.FAILED),
    "settles it as returned": settle_as(SettleAs.RETURNED),
    "settles it as completed, `--contradict-bank`": settle_as(SettleAs.COMPLETED, contradict_bank=True),
    "settles it as failed, `--contradict-bank`": settle_as(SettleAs.FAILED, contradict_bank=True),
    "settles it as returned, `--contradict-bank`": settle_as(SettleAs.RETURNED, contradict_bank=True),
    "halts transfers": halt,
    "halts and resumes transfers": halt_and_resume,
}
HALTING = {"halts transfers", "halts and resumes transfers"}
"""Acts that concern all transfers, so that each needs the world for itself."""


# What the bank says. --------------------------------------------------------------------------------------------------

Word = Callable[[SandboxBank, Sequence[Payment]], None]


def nothing(_control: SandboxBank, _payments: Sequence[Payment]) -> None:
    """Say nothing new."""


def complete(control: SandboxBank, _payments: Sequence[Payment]) -> None:
    control.settle()


def reject(control: SandboxBank, payments: Sequence[Payment]) -> None:
    for payment in payments:
        control.reject_reference(str(payment.transaction_id), "account is frozen")


def return_(control: SandboxBank, payments: Sequence[Payment]) -> None:
    for payment in payments:
        control.return_reference(str(payment.transaction_id), "R01")


def dishonor(control: SandboxBank, payments: Sequence[Payment]) -> None:
    for payment in payments:
        control.dishonor_reference(str(payment.transaction_id))


def stop_answering(control: SandboxBank, _payments: Sequence[Payment]) -> None:
    control.inject_fault("error_before_commit", method="GET", times=None)


def report_as_completed(control: SandboxBank, payments: Sequence[Payment]) -> None:
    for one in payments:
        control.insert_transfer(
            reference=str(one.transaction_id), amount_cents=CENTS, idempotency_key=one.key, status="completed"
        )


def forget(control: SandboxBank, payments: Sequence[Payment]) -> None:
    """Lose all transfers, longer ago than a lookup may lag behind."""
    control.inject_fault("lagging_lookup", method="GET", times=None)
    payments[0].worker.heal(grace_seconds=GRACE_SECONDS)
    _let_time_pass(payments[0].worker)


def find_again(control: SandboxBank, _payments: Sequence[Payment]) -> None:
    control.clear_faults()


# The states of a transfer. --------------------------------------------------------------------------------------------


def send(payment: Payment) -> None:
    payment.process()


def wait(_payment: Payment) -> None:
    """Leave it in the queue."""


def send_without_answer(payment: Payment) -> None:
    payment.worker.bank.control.inject_fault("reset_before_commit", method="POST", idempotency_key=payment.key)
    payment.process()


def send_and_be_refused(payment: Payment) -> None:
    payment.worker.bank.control.inject_fault(
        "refuse", method="POST", idempotency_key=payment.key, code="invalid_account"
    )
    payment.process()


@dataclass(frozen=True)
class TransferState:
    """How transfers get there, and what the bank may say next; `is_sending` if people act while the batch is sent."""

    words: Mapping[str, Word]
    send: Callable[[Payment], None] = send
    history: Sequence[Word] = ()
    is_sending: bool = False

    @property
    def acts(self) -> list[str]:
        return [act for act in ACTS if act not in HALTING or self.send is wait or self.is_sending]


NOTHING_NEW = "says nothing new"
UNKNOWN_TO_BANK = "does not know it"
"""The only word that is said after the grace time."""
SENT = "completes what is sent"
STATES: dict[str, TransferState] = {
    "Waiting in a queued batch": TransferState({SENT: complete}, wait),
    "About to be sent by a run": TransferState({SENT: complete}, is_sending=True),
    "Sent, no answer": TransferState(
        {
            "still does not answer": stop_answering,
            UNKNOWN_TO_BANK: nothing,
            "has completed it": report_as_completed,
        },
        send_without_answer,
    ),
    "Accepted": TransferState(
        {NOTHING_NEW: nothing, "completes it": complete, "rejects it": reject, "returns it": return_}
    ),
    "Completed": TransferState({NOTHING_NEW: nothing, "returns it": return_}, history=[complete]),
    "Refused": TransferState({UNKNOWN_TO_BANK: nothing}, send_and_be_refused),
    "Rejected": TransferState({NOTHING_NEW: nothing}, history=[reject]),
    "Returned": TransferState(
        {NOTHING_NEW: nothing, "reports it as completed again": dishonor}, history=[complete, return_]
    ),
    "Contradicted": TransferState(
        {NOTHING_NEW: nothing, "returns it again": return_}, history=[complete, return_, dishonor]
    ),
    "Forgotten": TransferState({"still does not find it": nothing, "finds it again": find_again}, history=[forget]),
}


# Driving them. --------------------------------------------------------------------------------------------------------


@dataclass
class ActingWorker(Worker):
    """A worker during whose first request to the bank a person acts."""

    act: Callable[[], None] = lambda: None
    is_terminated: bool = False
    has_acted: bool = field(default=False, init=False)

    @property
    def open_bank(self) -> Callable[[], AbstractAsyncContextManager[HuntingtonBank]]:
        @asynccontextmanager
        async def open_acting_bank() -> AsyncIterator[HuntingtonBank]:
            async with open_huntington_bank(self.settings) as bank:
                create_transfer = bank.create_transfer

                async def act_and_create(order: TransferOrder, may_send: Callable[[], bool]) -> TransferResponse:
                    if not self.has_acted:
                        self.has_acted = True
                        await asyncio.to_thread(self.act)
                        while self.is_terminated and may_send():
                            await asyncio.sleep(0.01)
                    return await create_transfer(order, may_send)

                bank.create_transfer = act_and_create  # type: ignore[method-assign]
                yield bank

        return open_acting_bank


def outcomes(worker: Worker, state: TransferState, word: str) -> dict[str, str]:
    """Return what becomes of a transfer in this state after each act and what the bank says, by act."""
    acts = [act for act in state.acts if act not in HALTING]
    found = _drive(worker, state, word, acts)
    for act in state.acts:
        if act in HALTING:
            found |= _drive(worker, state, word, [act])
            with worker.company.sessions.begin() as session:
                kill_switch.resume(session)
    return found


def _drive(worker: Worker, state: TransferState, word: str, acts: Sequence[str]) -> dict[str, str]:
    control = worker.bank.control
    payments = {
        act: create_payment(worker, number, companions=6 if state.is_sending else 0) for number, act in enumerate(acts)
    }
    for act, payment in payments.items():
        if state.is_sending:
            _send_while_acting(payment, act)
        else:
            state.send(payment)
    for earlier in state.history:
        earlier(control, list(payments.values()))
        worker.heal(grace_seconds=GRACE_SECONDS)
    _leave_the_feed(worker)
    for act, payment in payments.items():
        if not state.is_sending:
            payment.posts = worker.posts(payment.transaction_id)
            payment.request_status = _request_status(payment)
            _act(payment, act)
        if act.endswith(("the request", "the request to `pending`")):
            payment.request_status = _request_status(payment)
    if word != SENT:
        state.words[word](control, list(payments.values()))
    grace_seconds = 0 if word == UNKNOWN_TO_BANK else GRACE_SECONDS
    _heal(worker, grace_seconds)
    for payment in payments.values():
        if payment.company.batch_row(payment.batch_id).status == "queued":
            payment.process()
    _heal(worker, grace_seconds)
    if word == SENT:
        complete(control, [])
        _heal(worker, grace_seconds)
    _let_time_pass(worker)
    _heal(worker, grace_seconds)
    described = {act: _describe(payment) for act, payment in payments.items()}
    alerts = {act: _alerts(payment) for act, payment in payments.items()}
    control.clear_faults()
    with worker.company.sessions.begin() as session:
        kill_switch.resume(session)
    payable = _pay_again(worker, list(payments.values()))
    return {
        act: ", ".join([*described[act], *payable[payment.transaction_id]])
        + "".join(f"<br>⚠ `{rule}`" for rule in alerts[act])
        for act, payment in payments.items()
    }


def _let_time_pass(worker: Worker) -> None:
    """Let what lookups do not find be missing for longer than a lookup may lag behind."""
    with worker.company.sessions.begin() as session:
        session.execute(
            update(TransferEvidence).values(missing_since=TransferEvidence.missing_since - timedelta(hours=1))
        )


def _leave_the_feed(worker: Worker) -> None:
    """Let all that the bank has said so far be too old for the feed to repeat it."""
    with worker.company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(read_up_to=func.clock_timestamp() + OVERLAP))


def _heal(worker: Worker, grace_seconds: float) -> None:
    with suppress(SeedTrustError):
        worker.heal(grace_seconds=grace_seconds)


def _act(payment: Payment, act: str) -> None:
    try:
        ACTS[act](payment)
    except IntegrityError:
        payment.refusal = "refused by the database"
    except SeedTrustError:
        payment.refusal = "refused"


def _send_while_acting(payment: Payment, act: str) -> None:
    worker = payment.worker
    acting = ActingWorker(
        worker.company,
        worker.bank,
        worker.settings,
        worker.options,
        worker.name,
        worker.canceled_runs,
        act=lambda: _act(payment, act),
        is_terminated=ACTS[act] is terminate_run,
    )
    with suppress(SeedTrustError, ExceptionGroup):
        acting.process(payment.batch_id, concurrency=1)


def _request_status(payment: Payment) -> str | None:
    with payment.company.sessions() as session:
        return session.scalar(select(DisbursementRequest.status).where(DisbursementRequest.id == payment.request_id))


def _describe(payment: Payment) -> list[str]:
    """Return what became of it, in the words of the page."""
    transaction_id = payment.transaction_id
    with payment.company.sessions() as session:
        row = session.execute(
            select(HuntingtonTransaction.status, HuntingtonBatch.status.label("batch"))
            .join(HuntingtonBatch)
            .where(HuntingtonTransaction.id == transaction_id)
        ).one_or_none()
        corrections = select(LedgerCorrection.ledger_entry_id).where(LedgerCorrection.transaction_id == transaction_id)
        entries = session.scalars(
            select(LedgerEntry.amount_cents).where(
                or_(LedgerEntry.huntington_transaction_id == transaction_id, LedgerEntry.id.in_(corrections))
            )
        ).all()
    posts = payment.worker.posts(transaction_id)
    parts = [payment.refusal] if payment.refusal else []
    if payment.posts == 0:
        parts.append("sent" if posts == 1 else "not sent")
    elif posts > payment.posts:
        parts.append("sent again")
    assert posts <= payment.posts + 1
    parts.append(f"`{row.status}`" if row else "deleted")
    if entries:
        parts.append({-CENTS: "booked", 0: "reversed"}[sum(entries)])
    request_status = _request_status(payment)
    if request_status is None:
        parts.append("request deleted")
    elif request_status != payment.request_status:
        parts.append(f"request `{request_status}`")
    if row and row.batch in ("draft", "queued", "held", "processing"):
        parts.append(f"batch `{row.batch}`")
    return parts


def _alerts(payment: Payment) -> list[str]:
    """Return the rules whose alerts are open about it, those of health rules included once their time is up."""
    company = payment.company
    at_the_bank = payment.worker.bank_transfers([payment.transaction_id])
    with company.sessions() as session:
        batch_id = session.scalar(
            select(HuntingtonTransaction.batch_id).where(HuntingtonTransaction.id == payment.transaction_id)
        )
        subjects = {
            f"transaction {payment.transaction_id}",
            f"request {payment.request_id}",
            f"batch {batch_id}",
            f"transactions of batch {batch_id}",
            "transfers",
            *(f"bank transfer {transfer['id']}" for transfer in at_the_bank.values()),
        }
        findings = [
            *batch_stuck(
                session, queued_seconds=0, processing_seconds=0, transaction_seconds=0, halted_by_environment=False
            ),
            *batch_held(session),
            *transfers_halted(session, halted_by_environment=False),
            *ledger_mismatch(session),
        ]
    found = {finding.rule for finding in findings if finding.subject in subjects}
    return sorted(found | {rule for rule, subject in company.open_alerts() if subject in subjects})


def _pay_again(worker: Worker, payments: Sequence[Payment]) -> dict[int, list[str]]:
    """Put each request, approved, into a new batch; return by transaction whether that is sent."""
    company = worker.company
    batch_id = company.batch()
    again: dict[int, int] = {}
    for payment in payments:
        if _request_status(payment) is not None:
            payment.set_request(status="approved", amount_cents=CENTS)
            again[payment.transaction_id] = company.transaction(batch_id, payment.request_id, CENTS, method="ach")
    with suppress(SeedTrustError):
        replace(worker, name="run-of-payments-again").process(batch_id, requested_at=datetime.now(UTC))
    reasons = {row.id: row.failure_reason for row in company.transactions(batch_id)}
    answers: dict[int, list[str]] = {payment.transaction_id: [] for payment in payments}
    for transaction_id, second in again.items():
        is_sent = worker.posts(second) == 1
        assert is_sent or "may already have paid" in str(reasons[second]), reasons[second]
        answers[transaction_id] = ["payable again" if is_sent else "blocked"]
    return answers
