"""A row that is locked or refused fails alone: all other transfers are sent and recorded, and it is named."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.domain import row_failures
from seedtrust_ops.domain.row_failures import RowByRow
from seedtrust_ops.domain.transfers import sender
from seedtrust_ops.domain.transfers.account_numbers import InvalidAccountNumber, StoredTransfer
from seedtrust_ops.domain.transfers.attempts import AttemptResult
from seedtrust_ops.domain.transfers.batch_lifecycle import lock_batches
from seedtrust_ops.domain.transfers.batch_processor import TransactionsPostponed
from seedtrust_ops.domain.transfers.leases import Lease, LeaseLost
from seedtrust_ops.domain.transfers.sending_context import BatchRun
from seedtrust_ops.ports.bank import NotSent, TransferOrder
from seedtrust_ops.resources.huntington_client import HuntingtonBank
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import User
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, options_for, settings_for
from seedtrust_ops_tests.support.databases import impatient_sessions
from seedtrust_ops_tests.support.factories import BuiltCase, Company

SESSION_LOCK_SECONDS = 0.4
"""Instead of 20 seconds."""
ROW_LOCK_SECONDS = 0.05


@pytest.fixture
def worker(database_url: URL, company: Company, bank: BankProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker whose sessions wait for a locked row for a short time."""
    monkeypatch.setattr(row_failures, "ROW_LOCK_SECONDS", ROW_LOCK_SECONDS)
    with impatient_sessions(database_url, SESSION_LOCK_SECONDS) as sessions:
        yield Worker(Company(sessions, company.cipher), bank, settings_for(bank), options_for(bank))


class _Rows:
    """The ids of a transaction, its request, account and batch."""

    def __init__(self, company: Company, case: BuiltCase, batch_id: int, transaction_id: int) -> None:
        self.transaction, self.batch, self.account, self.case = transaction_id, batch_id, case.account_id, case.case_id
        (row,) = [one for one in company.transactions(batch_id) if one.id == transaction_id]
        self.request = row.disbursement_request_id


def _locked(table: str, row: str) -> Callable[[Company, _Rows], AbstractContextManager[None]]:
    """Another application holds a row for as long as the context lasts."""

    @contextmanager
    def hold(company: Company, rows: _Rows) -> Iterator[None]:
        with company.sessions() as session:
            session.execute(text(f"select from {table} where id = {getattr(rows, row)} for update"))
            yield
            session.rollback()

    return hold


def _refused(table: str, condition: str) -> Callable[[Company, _Rows], AbstractContextManager[None]]:
    """A trigger of the platform refuses a change."""

    @contextmanager
    def guard(company: Company, rows: _Rows) -> Iterator[None]:
        with company.sessions.begin() as session:
            session.execute(
                text(
                    "create function platform_guard() returns trigger language plpgsql as $$ begin "
                    f"if {condition.format(**vars(rows))} then raise exception 'no: 4000000001'; end if; "
                    "return new; end $$"
                )
            )
            session.execute(
                text(
                    f"create trigger guard before insert or update on {table} for each row "
                    "execute function platform_guard()"
                )
            )
        yield
        with company.sessions.begin() as session:
            session.execute(text("drop function platform_guard cascade"))

    return guard


def _constraint(company: Company, rows: _Rows) -> AbstractContextManager[None]:
    @contextmanager
    def constrain() -> Iterator[None]:
        with company.sessions.begin() as session:
            session.execute(
                text(f"alter table ledger_entries add constraint small check (account_id <> {rows.account}) not valid")
            )
        yield
        with company.sessions.begin() as session:
            session.execute(text("alter table ledger_entries drop constraint small"))

    return constrain()


FAULTS = {
    "account locked": _locked("accounts", "account"),
    "request locked": _locked("disbursement_requests", "request"),
    "transaction locked": _locked("huntington_transactions", "transaction"),
    "ledger refuses": _constraint,
    "trigger on account": _refused("accounts", "new.id = {account}"),
    "trigger on transaction": _refused("huntington_transactions", "new.id = {transaction}"),
    "trigger on request": _refused("disbursement_requests", "new.id = {request}"),
}


def _batch(company: Company, count: int, *, method: str = "wire") -> tuple[int, list[_Rows]]:
    """A queued batch of payments of different cases."""
    cases = [company.case() for _ in range(count)]
    batch_id = company.batch(case=cases[0])
    ids = [company.transaction(batch_id, company.request(case, 5_000), 5_000, method=method) for case in cases]
    return batch_id, [_Rows(company, case, batch_id, one) for case, one in zip(cases, ids, strict=True)]


@pytest.mark.parametrize("fault", FAULTS)
def test_row_failure_in_healing_leaves_other_transfers_alone(worker: Worker, company: Company, fault: str) -> None:
    batch_id, rows = _batch(company, 4, method="ach")
    worker.process(batch_id)
    worker.bank.control.settle()
    with FAULTS[fault](company, rows[1]):
        report = worker.heal()
        assert company.statuses(batch_id) == ["completed", "submitted", "completed", "completed"]
        assert list(report.inquiry.unrecorded) == [rows[1].transaction]
        assert "4000000001" not in str(report)
    assert worker.heal().inquiry.unrecorded == {}
    assert company.statuses(batch_id) == ["completed"] * 4
    assert company.unbalanced_accounts() == []


@contextmanager
def _during_recording(fault: AbstractContextManager[None]) -> Iterator[ExitStack]:
    """From the moment that the first response is recorded until the stack is closed."""
    original = sender.record_responses
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def record(session: Session, lease: Lease, results: Sequence[AttemptResult]) -> None:
            patch.undo()
            stack.enter_context(fault)
            original(session, lease, results)

        patch.setattr(sender, "record_responses", record)
        yield stack


@pytest.mark.parametrize("fault", FAULTS)
def test_row_failure_in_recording_leaves_other_transfers_alone(worker: Worker, company: Company, fault: str) -> None:
    batch_id, rows = _batch(company, 12)
    with _during_recording(FAULTS[fault](company, rows[5])) as until:
        worker.process(batch_id)
        assert company.statuses(batch_id) == ["completed"] * 5 + ["processing"] + ["completed"] * 6
        assert company.batch_row(batch_id).status == "processing"
        until.close()
    worker.heal()
    assert company.statuses(batch_id) == ["completed"] * 12
    assert company.batch_row(batch_id).status == "completed"
    assert worker.paid_more_than_once([one.transaction for one in rows]) == []
    assert company.unbalanced_accounts() == []


def test_waits_for_locked_rows_do_not_add_up(worker: Worker, company: Company, database_url: URL) -> None:
    lock_seconds, count = 1.0, 8
    batch_id, rows = _batch(company, 1)
    for _ in range(count - 1):
        request = company.request(BuiltCase(rows[0].case, rows[0].account, 0, _payee(company)), 100)
        company.transaction(batch_id, request, 100)
    with (
        impatient_sessions(database_url, lock_seconds) as sessions,
        _during_recording(_locked("accounts", "account")(company, rows[0])) as until,
    ):
        worker.company = Company(sessions, company.cipher)
        began = time.monotonic()
        worker.process(batch_id)
        assert time.monotonic() - began < count * lock_seconds
        assert company.statuses(batch_id) == ["processing"] * count
        until.close()
        worker.heal()
    assert company.statuses(batch_id) == ["completed"] * count


def _payee(company: Company) -> int:
    with company.sessions() as session:
        return session.scalars(select(func.max(User.id))).one()


def test_recording_without_a_failure_needs_no_further_statement(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    further: list[str] = []
    monkeypatch.setattr(row_failures, "limit_lock_waits", lambda _session: further.append("lock_timeout"))

    def record(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        further.extend([statement] if "SAVEPOINT" in statement else [])

    batch_id, _ = _batch(company, 3, method="ach")
    event.listen(Engine, "before_cursor_execute", record)
    try:
        worker.process(batch_id)
        worker.bank.control.settle()
        worker.heal()
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    assert company.statuses(batch_id) == ["completed"] * 3
    assert further == []


def _no_fence(_session: Session) -> None:
    pass


def test_lost_lease_is_no_rows_failure(sessions: sessionmaker[Session]) -> None:
    rows = RowByRow(sessions, _no_fence)

    def work(_session: Session, _ids: Sequence[int]) -> None:
        raise LeaseLost("lost")

    with pytest.raises(LeaseLost):
        rows.write([1, 2], work)
    assert rows.failures == {}


def test_lock_that_concerns_all_rows_is_no_rows_failure(worker: Worker, company: Company) -> None:
    batch_id = company.batch()
    rows = RowByRow(worker.company.sessions, lambda session: lock_batches(session, [batch_id]))

    def work(session: Session, _ids: Sequence[int]) -> None:
        lock_batches(session, [batch_id])

    with company.sessions() as session:
        lock_batches(session, [batch_id])
        with pytest.raises(OperationalError, match="lock timeout"):
            rows.write([1, 2], work)
    assert rows.failures == {}


def test_lost_connection_is_no_rows_failure(sessions: sessionmaker[Session]) -> None:
    rows = RowByRow(sessions, _no_fence)

    def work(session: Session, _ids: Sequence[int]) -> None:
        session.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(OperationalError):
        rows.write([1, 2], work)
    assert rows.failures == {}


@pytest.mark.parametrize("fault", ["account locked", "transaction locked"])
def test_locked_row_delays_only_its_own_payment(worker: Worker, company: Company, fault: str) -> None:
    batch_id, rows = _batch(company, 5)
    with FAULTS[fault](company, rows[2]), pytest.raises(TransactionsPostponed) as error:
        worker.process(batch_id)
    assert f"transaction {rows[2].transaction} (another application holds one of its rows locked)" in str(error.value)
    assert company.statuses(batch_id) == ["completed", "completed", "pending", "completed", "completed"]
    assert company.batch_row(batch_id).status == "queued"
    assert company.batch_row(batch_id).error == str(error.value)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 5


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidAccountNumber("the account number can't be decrypted"), "can't be decrypted"),
        (ValueError("4000000001"), "not sent: it has a value that cannot be stored (ValueError)"),
    ],
)
def test_payment_that_cannot_be_built_fails_alone(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    batch_id, rows = _batch(company, 29)
    original = sender.build_order

    def build(transaction: StoredTransfer, run: BatchRun) -> TransferOrder:
        if transaction.id == rows[7].transaction:
            raise error
        return original(transaction, run)

    monkeypatch.setattr(sender, "build_order", build)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 7 + ["failed"] + ["completed"] * 21
    failed = company.transactions(batch_id)[7].failure_reason
    assert failed is not None
    assert reason in failed
    assert "4000000001" not in failed
    assert company.outcomes(rows[7].transaction) == []


def test_payment_that_may_not_be_started_stays_pending_alone(worker: Worker, company: Company) -> None:
    batch_id, rows = _batch(company, 29)
    with (
        FAULTS["trigger on transaction"](company, rows[7]),
        pytest.raises(TransactionsPostponed, match=f"transaction {rows[7].transaction} .*platform_guard"),
    ):
        worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 7 + ["pending"] + ["completed"] * 21


class _ProgramError(Exception):
    pass


@pytest.mark.parametrize("where", ["sending", "starting", "recording"])
def test_crash_while_sending_leaves_nothing_unsent_in_processing(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    batch_id, rows = _batch(company, 40)
    ids = [one.transaction for one in rows]

    async def crash_sending(*_arguments: object) -> None:
        raise _ProgramError

    with monkeypatch.context() as patch:
        if where == "sending":
            patch.setattr(HuntingtonBank, "create_transfer", crash_sending)
        elif where == "starting":
            original = sender.record_sends

            def start(session: Session, orders: Mapping[int, TransferOrder]) -> None:
                if ids[-1] in orders:
                    raise _ProgramError
                original(session, orders)

            patch.setattr(sender, "record_sends", start)
        else:
            original_record = sender.record_responses

            def record(session: Session, lease: Lease, results: Sequence[AttemptResult]) -> None:
                if not any(isinstance(one.response, NotSent) for one in results):
                    raise _ProgramError
                original_record(session, lease, results)

            patch.setattr(sender, "record_responses", record)
        with pytest.raises(_ProgramError):
            worker.process(batch_id)
    at_the_bank = worker.bank_transfers(ids)
    stuck = [one.id for one in company.transactions(batch_id) if one.status == "processing"]
    assert [one for one in stuck if one not in at_the_bank and worker.posts(one) == 0] == []
    is_any_unsent = len(stuck) < sum(one.status != "completed" for one in company.transactions(batch_id))
    assert company.batch_row(batch_id).status == ("queued" if is_any_unsent else "processing")
    worker.heal()
    if is_any_unsent:
        worker.process(batch_id)
    assert company.statuses(batch_id) == ["completed"] * 40
    assert worker.paid_more_than_once(ids) == []
