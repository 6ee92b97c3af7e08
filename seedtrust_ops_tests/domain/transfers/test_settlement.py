"""Settling by hand: all four records change together, the bank is asked first, and only newer answers override it."""

from collections.abc import Callable

import pytest
from sqlalchemy import delete, func, select, text, update

from seedtrust_ops.domain.health.ledger import ledger_mismatch
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.domain.transfers.settlement import (
    SettleAs,
    Settlement,
    SettlementRefused,
    UnknownTransaction,
    ask_bank,
    settle,
)
from seedtrust_ops.ports.bank import BankInquiryFailed
from seedtrust_ops.tables import (
    DisbursementRequest,
    HuntingtonTransaction,
    LedgerCorrection,
    LedgerEntry,
    Notification,
    TransferEvidence,
    User,
)
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, settle_by_hand
from seedtrust_ops_tests.support.factories import BuiltCase, Company

CENTS = 5_000
BALANCE = 9_000


def accepted(worker: Worker, transaction_id: int) -> None:
    """Leave the transfer as the bank accepted it."""


def completed(worker: Worker, transaction_id: int) -> None:
    worker.bank.control.settle()
    worker.heal()


def rejected(worker: Worker, transaction_id: int) -> None:
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")
    worker.heal()


def returned(worker: Worker, transaction_id: int) -> None:
    completed(worker, transaction_id)
    worker.bank.control.return_reference(str(transaction_id), "R01")
    worker.heal()


def dishonored(worker: Worker, transaction_id: int) -> None:
    returned(worker, transaction_id)
    worker.bank.control.dishonor_reference(str(transaction_id))
    worker.heal()


STATES: dict[str, Callable[[Worker, int], None]] = {
    "accepted": accepted,
    "completed": completed,
    "rejected": rejected,
    "returned": returned,
    "dishonored": dishonored,
}
BANK_SAYS = {"completed": "completed", "rejected": "failed", "returned": "returned", "dishonored": "completed"}
MOVED = {"completed": -CENTS, "failed": 0, "returned": 0}
REQUEST = {"completed": "paid", "failed": "approved", "returned": "approved"}


def books(company: Company, case: BuiltCase, transaction_id: int) -> tuple[str, int, int, str]:
    """The transaction's status, the sum of its entries, what left the account, and its request's status."""
    corrections = select(LedgerCorrection.ledger_entry_id).where(LedgerCorrection.transaction_id == transaction_id)
    with company.sessions() as session:
        status, request = session.execute(
            select(HuntingtonTransaction.status, DisbursementRequest.status)
            .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
            .where(HuntingtonTransaction.id == transaction_id)
        ).one()
        cents = session.scalars(
            select(func.coalesce(func.sum(LedgerEntry.amount_cents), 0)).where(
                (LedgerEntry.huntington_transaction_id == transaction_id) | LedgerEntry.id.in_(corrections)
            )
        ).one()
    return status, int(cents), company.balance_cents(case.account_id) - BALANCE, request


def add_admin(company: Company) -> None:
    """Add somebody to email; without, an alert says that nobody could be notified."""
    with company.sessions.begin() as session:
        session.add(User(email="admin@example.com", full_name="Admin", role="admin"))


def test_contradicting_the_bank_with_no_admin_to_email_opens_an_alert(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case(balance_cents=BALANCE))
    settle_by_hand(worker, transaction_id, SettleAs.FAILED, contradict_bank=True)
    assert company.open_alerts() == [("notifications_failing", "transfer-settled emails without a recipient")]


@pytest.mark.parametrize("settle_as", SettleAs)
@pytest.mark.parametrize("state", STATES)
def test_settling_changes_status_ledger_balance_and_request(
    worker: Worker, company: Company, state: str, settle_as: SettleAs
) -> None:
    add_admin(company)
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    STATES[state](worker, transaction_id)
    agrees = BANK_SAYS.get(state) == settle_as
    before = books(company, case, transaction_id)
    if not agrees:
        with pytest.raises(SettlementRefused, match="The bank reports transaction"):
            settle_by_hand(worker, transaction_id, settle_as)
        assert books(company, case, transaction_id) == before

    settle_by_hand(worker, transaction_id, settle_as, contradict_bank=not agrees)
    expected = (settle_as.value, MOVED[settle_as], MOVED[settle_as], REQUEST[settle_as])
    assert books(company, case, transaction_id) == expected
    assert company.open_alerts() == []

    # The answer that was seen changes nothing any more.
    worker.heal()
    assert books(company, case, transaction_id) == expected


def test_newer_answer_of_the_bank_overrides_a_settlement(worker: Worker, company: Company) -> None:
    add_admin(company)
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    settle_by_hand(worker, transaction_id, SettleAs.FAILED, contradict_bank=True)
    worker.bank.control.settle()
    worker.heal()
    assert books(company, case, transaction_id) == ("completed", -CENTS, -CENTS, "paid")
    assert company.open_alerts() == []


def test_newer_answer_that_contradicts_a_booked_settlement_alerts(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED, contradict_bank=True)
    worker.bank.control.reject_reference(str(transaction_id), "account is frozen")
    worker.heal()
    assert books(company, case, transaction_id)[0] == "completed"
    assert ("bank_contradicts_itself", f"transaction {transaction_id}") in company.open_alerts()


def test_contradicting_the_bank_emails_every_active_admin(worker: Worker, company: Company) -> None:
    with company.sessions.begin() as session:
        for number, is_active in enumerate((True, True, False)):
            email = f"admin-{number}@example.com"
            session.add(User(email=email, full_name="Admin", role="admin", is_active=is_active))
    _, transaction_id = worker.submit_ach(company.case())
    settle_by_hand(worker, transaction_id, SettleAs.FAILED, contradict_bank=True)
    with company.sessions() as session:
        emails = session.scalars(
            select(Notification.recipient_email)
            .where(Notification.kind == "transfer-settled")
            .order_by(Notification.id)
        ).all()
    assert emails == ["admin-0@example.com", "admin-1@example.com"]


def test_settling_is_audited_and_recorded_as_evidence(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    completed(worker, transaction_id)
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    with company.sessions() as session:
        event = session.execute(text("select action, subject, reason from ops.audit_events")).one()
        outcomes = session.scalars(
            text("select outcome from ops.transfer_attempts where transaction_id = :id order by id"),
            {"id": transaction_id},
        ).all()
    assert tuple(event) == ("settle", f"transaction {transaction_id}: completed", "as Huntington says")
    assert outcomes[-1] == "settled"


def send_without_answer(worker: Worker, company: Company) -> int:
    batch_id = company.batch([CENTS])
    worker.bank.control.inject_fault("reset_before_commit", method="POST")
    worker.process(batch_id)
    (transaction,) = company.transactions(batch_id)
    return transaction.id


def test_failed_is_refused_while_the_request_may_still_arrive(worker: Worker, company: Company) -> None:
    transaction_id = send_without_answer(worker, company)
    with pytest.raises(SettlementRefused, match="may still be on its way to the bank"):
        settle_by_hand(worker, transaction_id, SettleAs.FAILED, grace=600)
    assert settle_by_hand(worker, transaction_id, SettleAs.FAILED).after == "failed"
    with company.sessions() as session:
        assert session.scalars(select(TransferEvidence.state)).one() == "not_moved"


def test_completed_needs_the_flag_if_the_bank_never_knew_the_transfer(worker: Worker, company: Company) -> None:
    transaction_id = send_without_answer(worker, company)
    with pytest.raises(SettlementRefused, match="The bank has never known transaction"):
        settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)


def test_settling_is_refused_while_a_worker_has_the_batch(worker: Worker, company: Company) -> None:
    batch_id, transaction_id = worker.submit_ach(company.case())
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 60)
    with pytest.raises(SettlementRefused, match="Run run-of-another is sending batch"):
        settle_by_hand(worker, transaction_id, SettleAs.FAILED, contradict_bank=True)


def test_settling_is_refused_without_an_answer_of_the_bank(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.inject_fault("error_before_commit", method="GET", times=None)
    with pytest.raises(BankInquiryFailed):
        settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)


def test_transaction_that_was_never_sent_can_not_be_settled(worker: Worker, company: Company) -> None:
    batch_id = company.batch([CENTS])
    (transaction,) = company.transactions(batch_id)
    with pytest.raises(UnknownTransaction, match="does not exist or was never sent"):
        settle_by_hand(worker, transaction.id, SettleAs.FAILED)


def test_forgotten_transfer_that_was_settled_is_not_missing_again(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.inject_fault("lagging_lookup", method="GET", times=None)
    worker.heal()
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {transaction_id}")]
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    worker.heal()
    assert company.open_alerts() == []


def test_request_denied_meanwhile_stays_denied_after_settling_as_failed(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    with company.sessions.begin() as session:
        session.execute(update(DisbursementRequest).values(status="denied"))
    completed(worker, transaction_id)
    settle_by_hand(worker, transaction_id, SettleAs.FAILED, contradict_bank=True)
    assert books(company, case, transaction_id) == ("failed", 0, 0, "denied")


@pytest.mark.parametrize(
    ("state", "settle_as", "change", "expected"),
    [
        ("completed", SettleAs.FAILED, "return", ("returned", 0, 0, "approved")),
        ("completed", SettleAs.FAILED, "return and dishonor", ("completed", -CENTS, -CENTS, "paid")),
        ("dishonored", SettleAs.COMPLETED, "return", ("returned", 0, 0, "approved")),
        ("returned", SettleAs.FAILED, "dishonor", ("completed", -CENTS, -CENTS, "paid")),
    ],
)
def test_newer_answer_corrects_what_a_settlement_booked(
    worker: Worker,
    company: Company,
    state: str,
    settle_as: SettleAs,
    change: str,
    expected: tuple[str, int, int, str],
) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    STATES[state](worker, transaction_id)
    settle_by_hand(worker, transaction_id, settle_as, contradict_bank=True)
    if change.startswith("return"):
        worker.bank.control.return_reference(str(transaction_id), "R01")
    if change.endswith("dishonor"):
        worker.bank.control.dishonor_reference(str(transaction_id))
    worker.heal()
    worker.heal()
    assert books(company, case, transaction_id) == expected


def test_lookup_that_lags_does_not_let_an_accepted_transfer_fail(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.inject_fault("lagging_lookup", method="GET", times=None)
    with pytest.raises(SettlementRefused, match="as accepted and does not find it now; a lookup can lag behind"):
        settle_by_hand(worker, transaction_id, SettleAs.FAILED)
    worker.heal()
    with pytest.raises(SettlementRefused, match="a lookup can lag behind"):
        settle_by_hand(worker, transaction_id, SettleAs.FAILED, grace=600)
    assert settle_by_hand(worker, transaction_id, SettleAs.FAILED).after == "failed"


def test_unreadable_answer_is_settled_only_against_the_bank(worker: Worker, company: Company) -> None:
    _, transaction_id = worker.submit_ach(company.case())
    worker.bank.control.misreport(str(transaction_id), {"status": "under_review"})
    with pytest.raises(SettlementRefused, match="cannot be read: status 'under_review'"):
        settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    report = settle_by_hand(worker, transaction_id, SettleAs.COMPLETED, contradict_bank=True)
    assert (report.after, report.bank_status) == ("completed", "something that cannot be read")


def test_answer_that_healing_recorded_meanwhile_counts(worker: Worker, company: Company) -> None:
    transaction_id = send_without_answer(worker, company)
    answer = ask_bank(worker.open_bank, transaction_id, None)
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=CENTS, idempotency_key=idempotency_key(transaction_id)
    )
    worker.heal()
    decision = Settlement(transaction_id, SettleAs.FAILED, "as Huntington says", "ana", unknown_grace_seconds=0)
    with company.sessions.begin() as session, pytest.raises(SettlementRefused, match="as completed"):
        settle(session, decision, answer)


def test_second_payment_found_by_settling_opens_an_alert(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=4 * CENTS)
    _, transaction_id = worker.submit_ach(case)
    returned(worker, transaction_id)
    with company.sessions() as session:
        request_id = session.scalars(select(DisbursementRequest.id)).one()
    again = company.batch(case=case)
    company.transaction(again, request_id, CENTS)
    worker.process(again)
    worker.bank.control.dishonor_reference(str(transaction_id))
    worker.heal()
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    assert company.open_alerts() == [("request_paid_twice", f"request {request_id}")]


def test_other_amount_of_the_bank_is_settled_with_an_alert(worker: Worker, company: Company) -> None:
    transaction_id = send_without_answer(worker, company)
    worker.bank.control.insert_transfer(
        reference=str(transaction_id), amount_cents=CENTS + 1, idempotency_key=idempotency_key(transaction_id)
    )
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    assert company.open_alerts() == [("amount_differs", f"transaction {transaction_id}")]
    assert company.ledger(transaction_id) == [("disbursement", -CENTS - 1)]


@pytest.mark.parametrize(("settle_as", "moved"), [(SettleAs.COMPLETED, -CENTS), (SettleAs.FAILED, 0)])
def test_deleted_transaction_is_settled_by_a_correction(
    worker: Worker, company: Company, settle_as: SettleAs, moved: int
) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    with company.sessions.begin() as session:
        session.execute(delete(HuntingtonTransaction))
    worker.bank.control.inject_fault("lagging_lookup", method="GET", times=None)
    worker.heal()
    assert company.open_alerts() == [("transfer_forgotten_by_bank", f"transaction {transaction_id}")]
    report = settle_by_hand(worker, transaction_id, settle_as)
    assert (report.before, report.correction_cents) == ("deleted", moved)
    assert company.balance_cents(case.account_id) - BALANCE == moved
    assert company.open_alerts() == []


def test_transfer_without_an_account_can_not_be_settled_as_paid(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case)
    with company.sessions.begin() as session:
        session.execute(update(TransferEvidence).values(account_id=None))
    with pytest.raises(SettlementRefused, match="no request whose case has an account"):
        settle_by_hand(worker, transaction_id, SettleAs.COMPLETED, contradict_bank=True)
    assert books(company, case, transaction_id) == ("submitted", 0, 0, "approved")


def test_entry_of_one_cent_is_found_and_settling_posts_the_rest(worker: Worker, company: Company) -> None:
    case = company.case(balance_cents=BALANCE)
    _, transaction_id = worker.submit_ach(case, CENTS)
    completed(worker, transaction_id)
    with company.sessions.begin() as session:
        session.execute(text("update ledger_entries set amount_cents = -1 where kind = 'disbursement'"))
        session.execute(text("update accounts set balance_cents = :cents"), {"cents": BALANCE - 1})
    with company.sessions() as session:
        (finding,) = ledger_mismatch(session)
    assert finding.subject == f"transaction {transaction_id}"
    settle_by_hand(worker, transaction_id, SettleAs.COMPLETED)
    assert company.balance_cents(case.account_id) == BALANCE - CENTS
