"""Explaining a transfer: the alert closes, and with a request it is booked once, refused, or netted to zero."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.explanation import (
    Explanation,
    ExplanationRefused,
    ExplanationReport,
    ask_bank,
    explain,
)
from seedtrust_ops.domain.transfers.settlement import SettleAs
from seedtrust_ops.tables import LedgerCorrection, LedgerEntry, UnknownTransfer
from seedtrust_ops_tests.domain.transfers.test_settlement import settle_by_hand
from seedtrust_ops_tests.domain.transfers.test_unknown_transfers import (
    deleted_after_it_was_sent,
    insert,
    legacy_transaction,
    second_with_our_reference,
    unknown,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import BuiltCase, Company

CENTS = 5_000
BALANCE = 9_000


def explain_by_hand(worker: Worker, bank_id: str, request_id: int | None = None) -> ExplanationReport:
    answer = ask_bank(worker.open_bank, bank_id)
    with worker.company.sessions.begin() as session:
        attest(session, Operator("ana"), "as Huntington says")
        return explain(session, Explanation(bank_id, "as Huntington says", "ana", request_id), answer)


def unknown_transfer(worker: Worker, status: str = "completed") -> str:
    bank_id = worker.bank.control.insert_transfer(
        reference="invoice 7", amount_cents=CENTS, idempotency_key=None, method="ach", status=status
    )["id"]
    worker.heal()
    return bank_id


def entries(company: Company, bank_id: str) -> list[tuple[str, int]]:
    with company.sessions() as session:
        rows = session.execute(
            select(LedgerEntry.kind, LedgerEntry.amount_cents)
            .join(LedgerCorrection, LedgerCorrection.ledger_entry_id == LedgerEntry.id)
            .where(LedgerCorrection.bank_transfer_id == bank_id, LedgerEntry.huntington_transaction_id.is_(None))
            .order_by(LedgerEntry.id)
        )
        return [(row.kind, row.amount_cents) for row in rows]


def books(company: Company, case: BuiltCase, request_id: int) -> tuple[int, str]:
    """What left the account, and the request's status."""
    return company.balance_cents(case.account_id) - BALANCE, company.request_status(request_id)


def test_explaining_closes_the_alert_and_is_audited(worker: Worker, company: Company) -> None:
    bank_id = unknown_transfer(worker)
    explain_by_hand(worker, bank_id)
    worker.heal()
    row = unknown(company)[bank_id]
    assert (row.explained_by, row.explanation) == ("ana", "as Huntington says")
    assert row.explained_at is not None
    assert company.open_alerts() == []
    with company.sessions() as session:
        events = session.execute(text("select action, subject, reason from ops.audit_events order by id")).all()
    assert tuple(events[0]) == ("explain", f"bank transfer {bank_id}", "as Huntington says")


@pytest.mark.parametrize(
    ("status", "expected_entries", "moved", "request_status"),
    [
        ("accepted", [("disbursement", -CENTS)], -CENTS, "paid"),
        ("completed", [("disbursement", -CENTS)], -CENTS, "paid"),
        ("returned", [("disbursement", -CENTS), ("reversal", CENTS)], 0, "approved"),
    ],
)
def test_explaining_with_a_request_books_it_as_the_bank_says(
    worker: Worker, company: Company, status: str, expected_entries: object, moved: int, request_status: str
) -> None:
    case = company.case(balance_cents=BALANCE)
    request_id = company.request(case, CENTS)
    bank_id = unknown_transfer(worker, status)
    report = explain_by_hand(worker, bank_id, request_id)
    assert report.posted_cents == moved
    explain_by_hand(worker, bank_id)
    explain_by_hand(worker, bank_id, request_id)
    assert entries(company, bank_id) == expected_entries
    assert books(company, case, request_id) == (moved, request_status)
    assert company.open_alerts() == []
    assert company.unbalanced_accounts() == []


def test_booked_transfer_that_comes_back_alerts_and_is_booked_back(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    request_id = company.request(case, CENTS)
    bank_id = unknown_transfer(worker)
    explain_by_hand(worker, bank_id, request_id)
    worker.bank.control.return_transfer(bank_id)
    worker.heal()
    assert company.open_alerts() == [("unknown_transfer", f"bank transfer {bank_id}")]
    assert books(company, case, request_id) == (-CENTS, "paid")

    explain_by_hand(worker, bank_id)
    worker.heal()
    assert entries(company, bank_id) == [("disbursement", -CENTS), ("reversal", CENTS)]
    assert books(company, case, request_id) == (0, "approved")
    assert company.open_alerts() == []


def test_explained_transfer_that_is_not_booked_may_come_back(worker: Worker, company: Company) -> None:
    bank_id = unknown_transfer(worker)
    explain_by_hand(worker, bank_id)
    worker.bank.control.return_transfer(bank_id)
    worker.heal()
    assert unknown(company)[bank_id].status == "returned"
    assert company.open_alerts() == []


def test_explained_transfer_that_moves_money_after_all_alerts_again(worker: Worker, company: Company) -> None:
    bank_id = unknown_transfer(worker, "returned")
    explain_by_hand(worker, bank_id)
    worker.bank.control.dishonor_reference("invoice 7")
    worker.heal()
    assert company.open_alerts() == [("unknown_transfer", f"bank transfer {bank_id}")]


def paid(worker: Worker, company: Company, case: BuiltCase) -> int:
    return company.request(case, CENTS, status="paid")


def in_flight(worker: Worker, company: Company, case: BuiltCase) -> int:
    batch_id = company.batch(case=case)
    request_id = company.request(case, CENTS)
    company.transaction(batch_id, request_id, CENTS, method="ach")
    worker.process(batch_id)
    return request_id


def about_to_be_sent(worker: Worker, company: Company, case: BuiltCase) -> int:
    request_id = company.request(case, CENTS)
    company.transaction(company.batch(case=case, status="processing"), request_id, CENTS)
    return request_id


def of_another_amount(worker: Worker, company: Company, case: BuiltCase) -> int:
    return company.request(case, CENTS + 1)


def missing(worker: Worker, company: Company, case: BuiltCase) -> int:
    return 987_654_321


REFUSED: dict[Callable[[Worker, Company, BuiltCase], int], str] = {
    paid: "is paid already",
    in_flight: "has paid disbursement request .* or may still pay it",
    about_to_be_sent: "has paid disbursement request .* or may still pay it",
    of_another_amount: r"is for \$50.01, but the transfer is for \$50.00",
    missing: "does not exist",
}


@pytest.mark.parametrize("request_kind", REFUSED, ids=lambda kind: kind.__name__.replace("_", " "))
def test_request_that_the_transfer_cannot_have_paid_is_refused(
    worker: Worker, company: Company, request_kind: Callable[[Worker, Company, BuiltCase], int]
) -> None:
    case = company.case(balance_cents=BALANCE)
    request_id = request_kind(worker, company, case)
    bank_id = unknown_transfer(worker)
    before = company.balance_cents(case.account_id)
    with pytest.raises(ExplanationRefused, match=REFUSED[request_kind]):
        explain_by_hand(worker, bank_id, request_id)
    assert company.balance_cents(case.account_id) == before
    assert unknown(company)[bank_id].explained_at is None
    assert ("unknown_transfer", f"bank transfer {bank_id}") in company.open_alerts()


def test_rejected_transfer_is_explained_but_pays_no_request(worker: Worker, company: Company) -> None:
    request_id = company.request(company.case(), CENTS)
    bank_id = unknown_transfer(worker, "rejected")
    with pytest.raises(ExplanationRefused, match="no money moved"):
        explain_by_hand(worker, bank_id, request_id)
    explain_by_hand(worker, bank_id)
    assert company.open_alerts() == []


def test_denied_request_is_paid_with_an_alert(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    request_id = company.request(case, CENTS, status="denied")
    bank_id = unknown_transfer(worker)
    explain_by_hand(worker, bank_id, request_id)
    assert books(company, case, request_id) == (-CENTS, "paid")
    assert company.open_alerts() == [("paid_without_approval", f"request {request_id}")]
    worker.bank.control.return_transfer(bank_id)
    worker.heal()
    explain_by_hand(worker, bank_id)
    assert books(company, case, request_id) == (0, "denied")


def test_transfer_of_a_transaction_is_not_explained(worker: Worker, company: Company) -> None:
    batch_id = company.batch([CENTS])
    worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    assert transaction.bank_transfer_id is not None
    with pytest.raises(ExplanationRefused, match=f"is that of transaction {transaction.id}"):
        explain_by_hand(worker, transaction.bank_transfer_id)
    with pytest.raises(ExplanationRefused, match="has read no bank transfer tr_nobody"):
        explain_by_hand(worker, "tr_nobody")


def test_deleted_transaction_is_settled_instead_of_booked(worker: Worker, company: Company) -> None:
    bank_id = deleted_after_it_was_sent(worker, company)
    worker.bank.control.settle()
    worker.heal()
    row = unknown(company)[bank_id]
    transaction_id = int(row.reference)
    with pytest.raises(ExplanationRefused, match=f"transfers settle {transaction_id}"):
        explain_by_hand(worker, bank_id, company.request(company.case(), CENTS))
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    worker.heal()
    assert company.open_alerts() == []
    assert unknown(company)[bank_id].transaction_id == transaction_id


def test_second_transfer_alert_closes_once_all_are_explained(worker: Worker, company: Company) -> None:
    bank_id = second_with_our_reference(worker, company)
    worker.heal()
    assert {rule for rule, _ in company.open_alerts()} == {"second_transfer", "unknown_transfer"}
    explain_by_hand(worker, bank_id)
    worker.heal()
    assert company.open_alerts() == []


def test_ambiguous_transaction_is_settled_once_the_other_is_explained(worker: Worker, company: Company) -> None:
    transaction_id = legacy_transaction(company)
    ours, foreign = insert(worker, transaction_id, None), insert(worker, transaction_id, None)
    worker.heal()
    explain_by_hand(worker, foreign)
    worker.heal()
    assert company.ledger(transaction_id) == [("disbursement", -CENTS)]
    assert unknown(company)[ours].transaction_id == transaction_id
    assert [one for one in company.open_alerts() if one[0] == "unknown_transfer"] == []


def test_transfer_without_account_is_booked_for_the_request_it_paid(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    batch_id = company.batch(status="failed", case=case)
    transaction_id = company.transaction(batch_id, None, CENTS, status="failed", failure_reason="timeout")
    with company.sessions.begin() as session:
        session.execute(text("update huntington_transactions set updated_at = now() - interval '30 days'"))
    bank_id = insert(worker, transaction_id, None)
    worker.heal()
    worker.heal()
    assert company.open_alerts() == [("unknown_transfer", f"bank transfer {bank_id}")]
    request_id = company.request(case, CENTS)
    explain_by_hand(worker, bank_id, request_id)
    worker.heal()
    assert books(company, case, request_id) == (-CENTS, "paid")
    assert company.open_alerts() == []


def test_booked_request_is_not_paid_again(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    request_id = company.request(case, CENTS)
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, request_id, CENTS)
    company.transaction(batch_id, company.request(case, 100), 100)
    explain_by_hand(worker, unknown_transfer(worker), request_id)
    worker.process(batch_id)
    assert company.statuses(batch_id) == ["failed", "completed"]
    assert worker.posts(transaction_id) == 0


def test_key_of_ours_without_a_row_is_explained(worker: Worker, company: Company) -> None:
    bank_id = insert(worker, 987_654_321_012, idempotency_key(987_654_321_012))
    worker.heal()
    explain_by_hand(worker, bank_id)
    assert company.open_alerts() == []
    with company.sessions() as session:
        assert session.scalars(select(UnknownTransfer.transaction_id)).one() is None
