"""A transfer that cannot be read is one transfer: the others are recorded, and it is unknown until it is readable."""

import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, text, update

from seedtrust_ops.domain.alerts.store import open_alerts, resolve_manually
from seedtrust_ops.domain.transfers.auto_heal import find_reason_to_heal
from seedtrust_ops.domain.transfers.evidence import State
from seedtrust_ops.domain.transfers.unreadable_transfers import find_unreadable, record_unreadable
from seedtrust_ops.ports.bank import UnreadableTransfer
from seedtrust_ops.sandbox.bank.control_client import ODD_ROWS
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.tables import Alert, BankFeedCursor, HuntingtonTransaction, TransferEvidence, UnreadableTransferRow
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.tiers import Resource, provides

PAGE_SIZE = 1_500
RULE = "bank_transfer_unreadable"
ODD = pytest.mark.parametrize("fields", ODD_ROWS.values(), ids=ODD_ROWS.keys())


@pytest.fixture(scope="module")
@provides(Resource.PROCESS)
def bank_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BankProcess]:
    """A bank for this module only, with pages so large that one can hold a thousand odd transfers."""
    directory = tmp_path_factory.mktemp("odd-bank")
    with start_bank(
        directory / "bank.sqlite", api_key=secrets.token_hex(16), available_cents=10**15, page_size=PAGE_SIZE
    ) as bank:
        yield bank


def accepted_batch(worker: Worker, company: Company) -> tuple[int, list[HuntingtonTransaction]]:
    """Process a batch of three ACHs, which the bank has accepted and settles afterwards."""
    batch_id = company.big_batch(3, method="ach")
    worker.process(batch_id)
    worker.bank.control.settle()
    return batch_id, company.transactions(batch_id)


def rows(company: Company) -> list[UnreadableTransferRow]:
    with company.sessions() as session:
        return list(session.scalars(select(UnreadableTransferRow).order_by(UnreadableTransferRow.subject)))


def make_due(company: Company) -> None:
    """Let the pause before the next inquiry pass."""
    with company.sessions.begin() as session:
        session.execute(update(UnreadableTransferRow).values(next_inquiry_at=func.now()))


@ODD
def test_odd_transfer_leaves_the_others_alone_and_is_recorded_once_readable(
    worker: Worker, company: Company, fields: Mapping[str, object]
) -> None:
    batch_id, (_, odd, _) = accepted_batch(worker, company)
    worker.bank.control.misreport(str(odd.id), fields)

    worker.heal()

    assert company.statuses(batch_id) == ["completed", "submitted", "completed"]
    (row,) = rows(company)
    assert company.open_alerts() == [(RULE, row.subject)]
    assert row.resolved_at is None
    assert row.problem

    worker.bank.control.report_truly(str(odd.id))
    make_due(company)
    worker.heal()

    assert company.statuses(batch_id) == ["completed"] * 3
    assert company.open_alerts() == []
    assert [row.resolved_at is None for row in rows(company)] == [False]


def test_transfer_is_asked_for_by_its_id_whatever_the_feed_shows(worker: Worker, company: Company) -> None:
    _, (_, odd, _) = accepted_batch(worker, company)
    worker.bank.control.misreport(str(odd.id), ODD_ROWS["unknown status"])
    worker.heal()
    with company.sessions.begin() as session:
        session.execute(update(BankFeedCursor).values(read_up_to=func.now() + timedelta(days=1)))
        session.execute(update(HuntingtonTransaction).values(status="failed"))
        session.execute(delete(TransferEvidence))
    worker.bank.control.report_truly(str(odd.id))

    worker.heal()
    assert [row.resolved_at is None for row in rows(company)] == [True]
    make_due(company)
    with company.sessions() as session:
        assert find_reason_to_heal(session) == "1 transfer at the bank that could not be read"
    worker.heal()

    assert company.statuses(odd.batch_id) == ["failed", "completed", "failed"]
    assert company.ledger(odd.id) == [("disbursement", -odd.amount_cents)]


@ODD
def test_odd_transfer_with_an_unknown_outcome_is_never_sent_again(
    worker: Worker, company: Company, fields: Mapping[str, object]
) -> None:
    batch_id = company.batch([5_000])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.misreport(str(transaction.id), fields)
    worker.bank.control.inject_fault("reset_after_commit", method="POST")

    worker.process(batch_id)
    for _ in range(3):
        worker.heal(grace_seconds=0)
        make_due(company)

    assert company.statuses(batch_id) == ["processing"]
    assert worker.posts(transaction.id) == 1
    assert [rule for rule, _ in company.open_alerts()] == [RULE]
    worker.bank.control.report_truly(str(transaction.id))
    worker.heal()
    assert company.statuses(batch_id) == ["completed"]


def test_foreign_reference_under_our_key_is_unreadable(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    (transaction,) = company.transactions(batch_id)
    worker.bank.control.misreport(str(transaction.id), {"reference": "another payment"})

    worker.process(batch_id)
    worker.heal()

    assert company.statuses(batch_id) == ["processing"]
    (row,) = rows(company)
    assert row.problem == f"It has the idempotency key of transaction {transaction.id}, but another reference."


def test_accepted_transfer_that_becomes_unreadable_is_not_missing(worker: Worker, company: Company) -> None:
    batch_id = company.big_batch(2, method="ach")
    worker.process(batch_id)
    (odd, _) = company.transactions(batch_id)
    worker.heal()
    worker.bank.control.misreport(str(odd.id), ODD_ROWS["no key"] | ODD_ROWS["no status"])

    worker.heal(grace_seconds=0)
    worker.heal(grace_seconds=0)

    assert [rule for rule, _ in company.open_alerts()] == [RULE]
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.missing_since)).all() == [None, None]


def test_thousand_odd_transfers_in_a_page_open_one_alert(worker: Worker, company: Company) -> None:
    worker.heal()
    for number in range(1_000):
        worker.bank.control.insert_transfer(f"invoice {number % 10}", 100 + number)
    for number in range(10):
        worker.bank.control.misreport(f"invoice {number}", ODD_ROWS["unknown status"])
    batch_id, _ = accepted_batch(worker, company)

    worker.heal()

    assert company.statuses(batch_id) == ["completed"] * 3
    assert company.open_alerts() == [(RULE, "unreadable transfers")]
    with company.sessions() as session:
        (alert,) = session.scalars(select(Alert))
    assert alert.detail.startswith("1,000 unreadable bank transfers: bank transfer tr_")

    for number in range(10):
        worker.bank.control.report_truly(f"invoice {number}")
    worker.heal()
    assert (RULE, "unreadable transfers") not in company.open_alerts()


def test_unrecordable_transfer_is_stored_and_the_cursor_moves_on(worker: Worker, company: Company) -> None:
    batch_id = company.batch()
    cases = [company.case() for _ in range(3)]
    ids = [company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach") for case in cases]
    worker.process(batch_id)
    worker.heal()
    worker.bank.control.settle()
    constraint = f"add constraint small check (account_id <> {cases[1].account_id}) not valid"
    with company.sessions.begin() as session:
        session.execute(text(f"alter table ledger_entries {constraint}"))

    before = _database_time(company)
    worker.heal()

    assert company.statuses(batch_id) == ["completed", "submitted", "completed"]
    assert [rule for rule, _ in company.open_alerts()] == [RULE]
    (row,) = rows(company)
    assert row.idempotency_key == f"seedtrust-transaction-{ids[1]}"
    assert row.problem == "It could not be recorded: constraint small of table ledger_entries refuses it."
    with company.sessions() as session:
        assert session.scalars(select(BankFeedCursor.last_read_at)).one() > before
    with company.sessions.begin() as session:
        session.execute(text("alter table ledger_entries drop constraint small"))
    worker.heal()
    assert company.statuses(batch_id) == ["completed"] * 3
    assert company.open_alerts() == []


def test_pauses_between_inquiries_double_up_to_an_hour(worker: Worker, company: Company) -> None:
    _, (_, odd, _) = accepted_batch(worker, company)
    worker.bank.control.misreport(str(odd.id), ODD_ROWS["unknown status"])
    worker.heal()
    pauses = []
    for _ in range(8):
        make_due(company)
        before = _database_time(company)
        worker.heal()
        (row,) = rows(company)
        pauses.append(round((row.next_inquiry_at - before).total_seconds() / 60))
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def _database_time(company: Company) -> datetime:
    with company.sessions() as session:
        return session.scalars(select(func.clock_timestamp())).one()


def test_transfer_without_a_name_stops_resends_until_a_person_closes_it(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000])
    worker.bank.control.inject_fault("reset_before_commit", method="POST")
    worker.process(batch_id)
    with company.sessions.begin() as session:
        record_unreadable(session, [UnreadableTransfer(None, None, None, "It is not an object.")])

    worker.heal()
    assert company.statuses(batch_id) == ["processing"]

    with company.sessions.begin() as session:
        (alert,) = open_alerts(session)
        resolve_manually(session, alert.id, "dana")
    worker.heal()
    assert company.statuses(batch_id) == ["pending"]
    assert company.open_alerts() == []


@pytest.mark.parametrize(
    ("name", "value"), [("idempotency_key", "seedtrust-transaction-{}"), ("reference", "{}"), ("bank id", "tr_known")]
)
def test_unreadable_transfer_blocks_whatever_bears_its_name(
    worker: Worker, company: Company, name: str, value: str
) -> None:
    batch_id = company.batch([5_000, 6_000])
    worker.process(batch_id)
    odd, other = company.transactions(batch_id)
    with company.sessions.begin() as session:
        session.execute(
            update(TransferEvidence)
            .where(TransferEvidence.transaction_id == odd.id)
            .values(bank_transfer_id="tr_known")
        )
        names = {"bank id": None, "idempotency_key": None, "reference": None} | {name: value.format(odd.id)}
        record_unreadable(
            session, [UnreadableTransfer(names["bank id"], names["idempotency_key"], names["reference"], "Odd.")]
        )
    with company.sessions() as session:
        assert find_unreadable(session, [odd.id, other.id]) == {odd.id}


def test_refused_transfer_that_the_bank_reports_after_all_is_in_doubt(worker: Worker, company: Company) -> None:
    batch_id = company.batch([5_000, 6_000])
    odd, _ = company.transactions(batch_id)
    worker.bank.control.inject_fault("refuse", method="POST", reference=str(odd.id))
    worker.process(batch_id)

    with company.sessions.begin() as session:
        key = f"seedtrust-transaction-{odd.id}"
        record_unreadable(session, [UnreadableTransfer("tr_after_all", key, None, "status 'held': unknown.")])

    with company.sessions() as session:
        evidence = session.get_one(TransferEvidence, odd.id)
        assert evidence.state == State.IN_FLIGHT


def test_transfer_that_the_bank_no_longer_finds_by_id_stays_unreadable(worker: Worker, company: Company) -> None:
    with company.sessions.begin() as session:
        record_unreadable(session, [UnreadableTransfer("tr_gone", None, None, "status 'held': unknown.")])
    make_due(company)

    worker.heal()

    (row,) = rows(company)
    assert (row.resolved_at, row.problem) == (None, "The bank reported it, and does not find it by its id any more.")


def test_key_that_the_bank_does_not_know_after_the_grace_period_is_resolved(worker: Worker, company: Company) -> None:
    with company.sessions.begin() as session:
        record_unreadable(session, [UnreadableTransfer(None, "seedtrust-transaction-999999", None, "Odd.")])
    make_due(company)
    worker.heal(grace_seconds=600)
    assert [row.resolved_at is None for row in rows(company)] == [True]
    make_due(company)
    worker.heal(grace_seconds=0)
    assert [row.resolved_at is None for row in rows(company)] == [False]
    assert company.open_alerts() == []
