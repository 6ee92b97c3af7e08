"""Workers that are killed, frozen or duplicated: money moves once, and a late worker writes nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, text, update

from seedtrust_ops.domain.transfers import sending_context
from seedtrust_ops.domain.transfers.attempts import AttemptResult, StartedAttempt, record_responses, start_attempts
from seedtrust_ops.domain.transfers.batch_lifecycle import AllTransfersFailed
from seedtrust_ops.domain.transfers.kill_switch import TransfersHalted, halt
from seedtrust_ops.domain.transfers.leases import (
    BatchStatusChanged,
    Lease,
    LeaseLost,
    acquire_lease,
    revoke_expired_leases,
)
from seedtrust_ops.ports.bank import NotSent
from seedtrust_ops.resources.http1_connection import BankConnection
from seedtrust_ops.tables import Account, BatchLease, DisbursementRequest, HuntingtonBatch, HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

SHORT_LEASE = {"HUNTINGTON_LEASE_SECONDS": "8"}
"""Short enough to wait for, and long enough that a worker does not lose it while a busy machine stalls."""


@contextmanager
def _worker_process(batch_id: int, holder: str, variables: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops_tests.domain.transfers.worker_process", str(batch_id), holder],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _stall_halfway(worker: Worker, responses: int) -> None:
    """Let the bank respond to `responses` transfers a little late, and stall on the others until faults are cleared."""
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=responses, seconds=0.1)
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=60)


def _posts(worker: Worker, transaction_ids: set[int]) -> int:
    return sum(
        request["method"] == "POST" and request["reference"] in {str(n) for n in transaction_ids}
        for request in worker.bank.control.requests()
    )


def _assert_paid_once_and_booked(worker: Worker, company: Company, batch_id: int) -> None:
    transactions = company.transactions(batch_id)
    at_bank = worker.bank_transfers([transaction.id for transaction in transactions])
    assert {transaction.status for transaction in transactions} == {"completed"}
    assert sum(transfer["amount_cents"] for transfer in at_bank.values()) == sum(
        transaction.amount_cents for transaction in transactions
    )
    assert all(
        company.ledger(transaction.id) == [("disbursement", -transaction.amount_cents)] for transaction in transactions
    )
    assert worker.paid_more_than_once([transaction.id for transaction in transactions]) == []
    assert company.unbalanced_accounts() == []
    assert company.batch_row(batch_id).status == "completed"


@pytest.mark.usefixtures("child_processes")
def test_batch_is_paid_once_if_its_worker_is_killed_halfway(
    worker: Worker, company: Company, bank_environment: dict[str, str]
) -> None:
    batch_id = company.big_batch(300)
    _stall_halfway(worker, responses=40)
    with _worker_process(batch_id, "killed", bank_environment | SHORT_LEASE) as process:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first recorded response", seconds=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    worker.bank.control.clear_faults()
    statuses = company.statuses(batch_id)
    assert "pending" in statuses
    assert "completed" in statuses

    wait_until(lambda: worker.heal(grace_seconds=0) and company.batch_row(batch_id).status == "queued", what="healing")
    worker.process(batch_id)

    _assert_paid_once_and_booked(worker, company, batch_id)


def test_concurrent_workers_on_one_batch_send_every_transfer_once(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(60)
    names = ["first", "second", "third"]
    workers = [replace(worker, name=name) for name in names]
    with ThreadPoolExecutor(len(workers)) as pool:
        reports = list(pool.map(lambda worker: worker.process(batch_id), workers))

    assert sum(report.held_by is None for report in reports) >= 1
    assert all(report.held_by in (None, *names) for report in reports)
    _assert_paid_once_and_booked(worker, company, batch_id)
    assert all(worker.posts(transaction.id) == 1 for transaction in company.transactions(batch_id))


@pytest.mark.usefixtures("child_processes")
def test_worker_frozen_past_its_lease_writes_and_pays_nothing(
    worker: Worker, company: Company, bank_environment: dict[str, str]
) -> None:
    batch_id = company.big_batch(100)
    ids = {transaction.id for transaction in company.transactions(batch_id)}
    _stall_halfway(worker, responses=20)
    with _worker_process(batch_id, "frozen", bank_environment | SHORT_LEASE) as process:
        wait_until(lambda: _posts(worker, ids) >= 20, what="20 requests at the bank", seconds=60)
        process.send_signal(signal.SIGSTOP)
        worker.bank.control.clear_faults()
        wait_until(
            lambda: worker.heal(grace_seconds=0) and company.batch_row(batch_id).status == "queued",
            what="healing",
            seconds=90,
        )
        worker.process(batch_id)
        before = {transaction.id: transaction.updated_at for transaction in company.transactions(batch_id)}
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=90)

    assert process.returncode != 0
    assert {transaction.id: transaction.updated_at for transaction in company.transactions(batch_id)} == before
    _assert_paid_once_and_booked(worker, company, batch_id)


def test_late_writer_is_fenced_out_by_a_newer_token(worker: Worker, company: Company) -> None:
    batch_id = company.batch([100])
    (transaction,) = company.transactions(batch_id)
    with company.sessions.begin() as session:
        late = acquire_lease(session, batch_id, "late", 60)
        assert isinstance(late, Lease)
        attempt = start_attempts(session, [transaction.id])[transaction.id]
        session.execute(update(HuntingtonTransaction).values(status="processing"))
        session.execute(update(BatchLease).values(expires_at=BatchLease.acquired_at))
        assert isinstance(acquire_lease(session, batch_id, "newer", 60), Lease)

    with pytest.raises(LeaseLost), company.sessions.begin() as session:
        record_responses(session, late, [AttemptResult(attempt, NotSent("late"))])

    assert company.statuses(batch_id) == ["processing"]
    assert company.outcomes(transaction.id) == ["started"]


def test_expired_lease_cannot_be_used_even_if_nobody_acquired_it(company: Company) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        lease = acquire_lease(session, batch_id, "slow", 0)
        assert isinstance(lease, Lease)
    with company.sessions.begin() as session:
        assert revoke_expired_leases(session) == [batch_id]
    attempt = StartedAttempt(company.transactions(batch_id)[0].id, 1, company.batch_row(batch_id).created_at)
    with pytest.raises(LeaseLost), company.sessions.begin() as session:
        record_responses(session, lease, [AttemptResult(attempt, NotSent("late"))])


def test_hold_halfway_stops_the_batch_and_keeps_the_rest_pending(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(200)
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.2)

    def hold() -> None:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer")
        with company.sessions.begin() as session:
            session.execute(update(HuntingtonBatch).values(status="held"))

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        with pytest.raises(BatchStatusChanged, match="'held'"):
            worker.process(batch_id)
        holding.result()

    statuses = company.statuses(batch_id)
    assert set(statuses) == {"completed", "pending"}
    assert company.batch_row(batch_id).status == "held"
    sent = {transaction.id for transaction in company.transactions(batch_id) if transaction.status == "completed"}
    assert _posts(worker, {transaction.id for transaction in company.transactions(batch_id)}) == len(sent)


def test_halt_halfway_stops_sending_and_requeues_the_batch(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(200)
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.2)

    def switch_off() -> None:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer")
        with company.sessions.begin() as session:
            halt(session, "fire drill", "Maria")

    with ThreadPoolExecutor(1) as pool:
        switching = pool.submit(switch_off)
        with pytest.raises(TransfersHalted, match="fire drill"):
            worker.process(batch_id)
        switching.result()

    assert set(company.statuses(batch_id)) == {"completed", "pending"}
    row = company.batch_row(batch_id)
    assert row.status == "queued"
    assert "fire drill" in (row.error or "")


def test_database_connections_dropped_halfway_lose_nothing(worker: Worker, company: Company) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    batch_id = company.big_batch(200)
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.2)

    def drop_connections() -> None:
        wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer")
        with company.sessions.begin() as session:
            session.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            )

    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(drop_connections)
        try:
            worker.process(batch_id)
        except DBAPIError:
            worker.bank.control.clear_faults()
            worker.process(batch_id)
        dropping.result()
    worker.bank.control.clear_faults()

    wait_until(lambda: worker.heal(grace_seconds=0) and "processing" not in company.statuses(batch_id), what="healing")
    if company.batch_row(batch_id).status == "queued":
        worker.process(batch_id)
    _assert_paid_once_and_booked(worker, company, batch_id)


@pytest.mark.usefixtures("child_processes")
def test_frozen_worker_that_resumes_sends_nothing_denied_meanwhile(
    worker: Worker, company: Company, bank_environment: dict[str, str]
) -> None:
    batch_id = company.big_batch(40)
    ids = {transaction.id for transaction in company.transactions(batch_id)}
    worker.bank.control.inject_fault("rate_limited", method="POST", times=None, seconds=3)
    with _worker_process(batch_id, "frozen", bank_environment | SHORT_LEASE) as process:
        wait_until(lambda: _posts(worker, ids) >= 8, what="eight rate-limited requests")
        process.send_signal(signal.SIGSTOP)
        worker.bank.control.clear_faults()
        wait_until(
            lambda: worker.heal(grace_seconds=0) and company.batch_row(batch_id).status == "queued",
            what="healing",
            seconds=90,
        )
        with company.sessions.begin() as session:
            session.execute(update(DisbursementRequest).values(status="denied"))
        with pytest.raises(AllTransfersFailed):
            worker.process(batch_id)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=90)

    assert worker.bank_transfers(sorted(ids)) == {}
    assert set(company.statuses(batch_id)) == {"failed"}


def test_worker_frozen_while_connecting_sends_nothing_afterwards(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.big_batch(3)
    ids = {transaction.id for transaction in company.transactions(batch_id)}
    original_connect, real = BankConnection._connect, time.time

    async def connect_late(connection: BankConnection) -> Any:
        protocol = await original_connect(connection)
        monkeypatch.setattr(sending_context.time, "time", lambda: real() + 3_600)
        return protocol

    with monkeypatch.context() as patch:
        patch.setattr(BankConnection, "_connect", connect_late)
        with pytest.raises(LeaseLost):
            worker.process(batch_id)
    monkeypatch.undo()

    assert _posts(worker, ids) == 0
    assert company.statuses(batch_id) == ["pending"] * 3
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 3


def test_interrupted_run_records_its_responses_and_sends_no_more(worker: Worker, company: Company) -> None:
    """Dagster interrupts a run by raising in its main thread, at any point."""
    batch_id = company.big_batch(200)
    ids = {transaction.id for transaction in company.transactions(batch_id)}
    worker.bank.control.inject_fault("late_response_after_commit", method="POST", times=None, seconds=0.2)

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(
                lambda: (
                    wait_until(lambda: "completed" in company.statuses(batch_id), what="a first transfer"),
                    os.kill(os.getpid(), signal.SIGUSR1),
                )
            )
            with pytest.raises(KeyboardInterrupt):
                worker.process(batch_id)
            killing.result()
    finally:
        signal.signal(signal.SIGUSR1, before)

    statuses = company.statuses(batch_id)
    assert set(statuses) == {"completed", "pending"}
    assert statuses.count("completed") == _posts(worker, ids)
    assert company.batch_row(batch_id).status == "queued"


def test_slow_preflight_does_not_lose_the_lease(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(10)

    def lease_expires_at() -> datetime | None:
        with company.sessions() as session:
            return session.scalar(select(BatchLease.expires_at).where(BatchLease.batch_id == batch_id))

    with ThreadPoolExecutor(1) as pool, company.sessions.begin() as session:
        # On a busy machine the server must not end this session as idle.
        session.execute(text("set local idle_in_transaction_session_timeout = 0"))
        session.execute(select(Account).with_for_update())
        processing = pool.submit(worker.process, batch_id, lease_seconds=6)
        wait_until(lambda: company.batch_row(batch_id).status == "processing", what="the claim")
        first_expiry = lease_expires_at()
        assert first_expiry is not None
        wait_until(lambda: datetime.now(UTC) > first_expiry, what="the first expiry of the lease")
        other = replace(worker, name="another").process(batch_id)
        session.rollback()
        assert processing.result().status == "completed"
    assert other.held_by == worker.name
