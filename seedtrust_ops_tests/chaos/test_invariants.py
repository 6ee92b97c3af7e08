"""The invariants detect every kind of violation: each is introduced by hand into books that were correct before."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import text

from seedtrust_ops_tests.chaos.bank_pool import BankPool
from seedtrust_ops_tests.chaos.human_record import HumanRecord
from seedtrust_ops_tests.chaos.invariants import SendBan, check_invariants, check_resends, last_request_id
from seedtrust_ops_tests.chaos.recovery import evaluate_health
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind, build_row
from seedtrust_ops_tests.chaos.witness import install_witness
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, options_for, settings_for
from seedtrust_ops_tests.support.factories import Company

CENTS = 5_000
NOBODYS_NUMBER = "987654321"


@dataclass(frozen=True)
class FinishedBatch:
    """A finished batch with one transaction for every outcome, and methods to corrupt it."""

    worker: Worker
    batch_id: int
    paid: int
    submitted: int
    returned: int
    rejected: int
    refused: int
    preflight_failed: int
    human: HumanRecord = field(default_factory=HumanRecord)

    @property
    def company(self) -> Company:
        return self.worker.company

    def sql(self, statement: str, **values: object) -> None:
        with self.company.sessions.begin() as session:
            session.execute(text(statement), values)

    def set(self, transaction_id: int, assignments: str) -> None:
        self.sql(f"update huntington_transactions set {assignments} where id = :id", id=transaction_id)

    def check(self, *, is_final: bool = True, bans: tuple[SendBan, ...] = ()) -> list[Violation]:
        return check_invariants(
            self.company.sessions, self.worker.bank.control, is_final=is_final, bans=bans, human=self.human
        )


@pytest.fixture
def batch(company: Company, own_bank: BankPool) -> FinishedBatch:
    install_witness(company.sessions.kw["bind"])
    worker = Worker(company, own_bank, settings_for(own_bank), options_for(own_bank))
    case = company.case()
    batch_id = company.batch(case=case)

    def transaction(**columns: object) -> int:
        return company.transaction(batch_id, company.request(case, CENTS), CENTS, **columns)

    ids = {
        "paid": transaction(),
        "submitted": transaction(method="ach"),
        "returned": transaction(method="ach"),
        "rejected": transaction(method="ach"),
        "refused": transaction(account_number="4220000001"),
        "preflight_failed": transaction(routing_number="123456789"),
    }
    worker.process(batch_id)
    own_bank.control.return_reference(str(ids["returned"]), "R03")
    own_bank.control.reject_reference(str(ids["rejected"]), "account is frozen")
    worker.heal()
    return FinishedBatch(worker, batch_id, **ids)


def _pay_again(batch: FinishedBatch) -> None:
    batch.worker.bank.control.forget_key(f"seedtrust-transaction-{batch.paid}")
    batch.sql("delete from ops.transfer_evidence")
    batch.set(batch.paid, "status = 'pending', bank_transfer_id = null")
    batch.sql("delete from ledger_entries where huntington_transaction_id = :id", id=batch.paid)
    batch.sql("update disbursement_requests set status = 'approved' where status = 'paid'")
    batch.sql("update huntington_batches set status = 'queued'")
    batch.worker.process(batch.batch_id)


def _pay_request_with_second_transaction(batch: FinishedBatch) -> None:
    batch.sql("update disbursement_requests set status = 'approved' where status = 'paid'")
    batch.sql(
        "update huntington_transactions set disbursement_request_id = null where id = :id",
        id=batch.paid,
    )
    batch.sql("delete from ops.transfer_evidence")
    batch_id = batch.company.batch()
    with batch.company.sessions() as session:
        request_id = session.scalar(
            text("select id from disbursement_requests r where status = 'approved' order by id limit 1")
        )
    batch.company.transaction(batch_id, request_id, CENTS)
    batch.worker.process(batch_id)
    batch.set(batch.paid, f"disbursement_request_id = {request_id}")


def _delete_attempts(batch: FinishedBatch) -> None:
    batch.sql("alter table ops.transfer_attempts disable trigger user")
    batch.sql("delete from ops.transfer_attempts where transaction_id = :id", id=batch.paid)


def _pay_outside_seedtrust(batch: FinishedBatch) -> None:
    batch.worker.bank.control.insert_transfer(str(batch.paid), CENTS)


def _see_unknown_transfer_without_alert(batch: FinishedBatch) -> None:
    batch.worker.bank.control.add_unknown_transfer()
    batch.worker.heal()
    batch.sql("update ops.alerts set resolved_at = now() where rule = 'unknown_transfer'")


def _lose_bank_id(batch: FinishedBatch) -> None:
    batch.set(batch.paid, "bank_transfer_id = null")
    batch.sql("update ops.transfer_evidence set bank_transfer_id = null where transaction_id = :id", id=batch.paid)


def _unpaid_batch(batch: FinishedBatch, status: str) -> None:
    batch.company.batch([100], status=status)


def _accept_long_ago(batch: FinishedBatch) -> None:
    batch_id = batch.company.batch()
    request_id = batch.company.request(batch.company.case(), CENTS)
    transaction_id = batch.company.transaction(batch_id, request_id, CENTS, method="ach", status="submitted")
    batch.worker.bank.control.insert_transfer(
        str(transaction_id), CENTS, status="accepted", created_at=datetime.now(UTC) - timedelta(days=9)
    )


def _set(transaction: str, assignments: str) -> Callable[[FinishedBatch], None]:
    return lambda batch: batch.set(getattr(batch, transaction), assignments)


def _sql(statement: str) -> Callable[[FinishedBatch], None]:
    return lambda batch: batch.sql(statement)


CORRUPTIONS: dict[str, tuple[Callable[[FinishedBatch], None], ViolationKind, str]] = {
    "one key pays twice": (_pay_again, ViolationKind.DOUBLE_PAYMENT, "moved money 2 times"),
    "one request paid by two transactions": (
        _pay_request_with_second_transaction,
        ViolationKind.DOUBLE_PAYMENT,
        "was paid by 2",
    ),
    "paid outside SeedTrust without an alert": (
        _pay_outside_seedtrust,
        ViolationKind.DOUBLE_PAYMENT,
        "no alert says so",
    ),
    "attempt not recorded": (_delete_attempts, ViolationKind.SENT_WITHOUT_PERMISSION, "only 0 attempts"),
    "draft sent": (
        _sql("update huntington_batches set status = 'draft'"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "no worker claimed",
    ),
    "unclaimed batch sent": (
        _sql("delete from ops.batch_leases"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "no worker claimed",
    ),
    "transaction without request sent": (
        _set("paid", "disbursement_request_id = null"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "has no disbursement request",
    ),
    "different amount sent": (
        _set("paid", "amount_cents = 1"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "different amount",
    ),
    "request for an amount that was never ordered": (
        _sql("update witness.orders set amount_cents = 1, approved_cents = 1"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "an amount that it never had",
    ),
    "attempt recorded without a lease": (
        _sql("update witness.orders set is_leased = false"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "'processing' and not leased",
    ),
    "attempt recorded for a held batch": (
        _sql("update witness.orders set batch_status = 'held'"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "which was 'held'",
    ),
    "attempt recorded without a request": (
        _sql("update witness.orders set request_id = null"),
        ViolationKind.SENT_WITHOUT_PERMISSION,
        "for no disbursement request",
    ),
    "refused payment marked completed": (
        _set("refused", "status = 'completed'"),
        ViolationKind.LOST_PAYMENT,
        "never moved its money",
    ),
    "submitted payment marked completed": (
        _set("submitted", "status = 'completed'"),
        ViolationKind.STATUS_MISMATCH,
        "the bank says 'accepted'",
    ),
    "completed payment marked returned": (
        _set("paid", "status = 'returned'"),
        ViolationKind.STATUS_MISMATCH,
        "the bank says 'completed'",
    ),
    "return with a different code": (
        _set("returned", "failure_reason = 'R01'"),
        ViolationKind.STATUS_MISMATCH,
        "R01",
    ),
    "balance differs from ledger": (
        _sql("update accounts set balance_cents = balance_cents + 1"),
        ViolationKind.LEDGER_MISMATCH,
        "its ledger entries sum to",
    ),
    "payment missing in ledger": (
        _sql("delete from ledger_entries where kind = 'disbursement'"),
        ViolationKind.LOST_PAYMENT,
        "the ledger has 0",
    ),
    "payment in ledger with wrong amount": (
        _sql("update ledger_entries set amount_cents = amount_cents - 1 where kind = 'disbursement'"),
        ViolationKind.LEDGER_MISMATCH,
        "not what the bank moved",
    ),
    "return missing in ledger": (
        _sql("delete from ledger_entries where kind = 'reversal'"),
        ViolationKind.LEDGER_MISMATCH,
        "its ledger entries are ['disbursement']",
    ),
    "request paid without payment": (
        _sql("update disbursement_requests set status = 'paid'"),
        ViolationKind.LEDGER_MISMATCH,
        "with 0 completed",
    ),
    "paid request payable again": (
        _sql("update disbursement_requests set status = 'approved'"),
        ViolationKind.LEDGER_MISMATCH,
        "with 1 completed",
    ),
    "payment marked failed": (
        _set("submitted", "status = 'failed', failure_reason = 'limit_exceeded'"),
        ViolationKind.LOST_PAYMENT,
        "but the bank paid it",
    ),
    "failure without a valid reason": (
        _set("preflight_failed", "failure_reason = 'timeout after 30 s'"),
        ViolationKind.UNEXPLAINED,
        "neither the bank nor preflight",
    ),
    "refusal that never happened": (
        _set("preflight_failed", "failure_reason = 'limit_exceeded'"),
        ViolationKind.UNEXPLAINED,
        "neither the bank nor preflight",
    ),
    "payment left pending": (
        _set("preflight_failed", "status = 'pending'"),
        ViolationKind.LOST_PAYMENT,
        "will never be sent",
    ),
    "payment left unknown": (_set("paid", "status = 'processing'"), ViolationKind.UNEXPLAINED, "no alert says why"),
    "bank loses transfer without an alert": (
        lambda batch: batch.worker.bank.control.forget_key(f"seedtrust-transaction-{batch.submitted}"),
        ViolationKind.UNEXPLAINED,
        "no alert says so",
    ),
    "batch left queued": (lambda batch: _unpaid_batch(batch, "queued"), ViolationKind.UNEXPLAINED, "ended as 'queued'"),
    "batch marked completed": (
        _sql("update huntington_batches set status = 'completed'"),
        ViolationKind.UNEXPLAINED,
        "ended as 'completed'",
    ),
    "finished batch without finish time": (
        _sql("update huntington_batches set finished_at = null"),
        ViolationKind.UNEXPLAINED,
        "has no finish time",
    ),
    "unknown transfer that auto-heal has not seen": (
        lambda batch: batch.worker.bank.control.add_unknown_transfer(),
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "which no row explains",
    ),
    "rejected unknown transfer that auto-heal has not seen": (
        lambda batch: batch.worker.bank.control.add_unknown_transfer(NOBODYS_NUMBER, status="rejected"),
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "which no row explains",
    ),
    "second transfer for one of our transactions": (
        _pay_outside_seedtrust,
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "which no row explains",
    ),
    "unknown transfer of which no alert tells": (
        _see_unknown_transfer_without_alert,
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "no alert says so",
    ),
    "transfer of a deleted transaction": (
        lambda batch: batch.sql("delete from huntington_transactions where id = :id", id=batch.submitted),
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "which no row explains",
    ),
    "transfer whose id was lost": (
        _lose_bank_id,
        ViolationKind.TRANSFER_WITHOUT_ROW,
        "which no row explains",
    ),
    "failed payment of which nobody was emailed": (
        _sql("delete from ops.notifications where kind = 'transfer-failed'"),
        ViolationKind.NOBODY_KNOWS,
        "failed",
    ),
    "failed payment that the email does not list": (
        _sql("update ops.notifications set variables = '{\"rows\": []}' where kind = 'transfer-failed'"),
        ViolationKind.NOBODY_KNOWS,
        "failed",
    ),
    "failed payment of which the email names another transaction": (
        _sql(
            "update ops.notifications set variables = jsonb_set(variables, '{rows,0,transaction}', '\"0\"')"
            " where kind = 'transfer-failed'"
        ),
        ViolationKind.NOBODY_KNOWS,
        "failed",
    ),
    "late rejection of which nobody was emailed": (
        _sql("delete from ops.notifications where kind = 'transfer-rejected'"),
        ViolationKind.NOBODY_KNOWS,
        "failed",
    ),
    "return of which nobody was emailed": (
        _sql("delete from ops.notifications where kind = 'transfer-returned'"),
        ViolationKind.NOBODY_KNOWS,
        "was returned",
    ),
    "return of which only somebody who has left was emailed": (
        _sql("update witness.emails set is_to_active_user = false"),
        ViolationKind.NOBODY_KNOWS,
        "was returned",
    ),
    "return whose email failed": (
        _sql("update ops.notifications set status = 'failed'"),
        ViolationKind.NOBODY_KNOWS,
        "was returned",
    ),
    "held batch of which no alert tells": (
        lambda batch: _unpaid_batch(batch, "held"),
        ViolationKind.NOBODY_KNOWS,
        "is held",
    ),
    "overdue settlement of which no alert tells": (
        _accept_long_ago,
        ViolationKind.NOBODY_KNOWS,
        "days ago",
    ),
    "contradiction of which no alert tells": (
        lambda batch: batch.worker.bank.control.dishonor_reference(str(batch.returned)),
        ViolationKind.NOBODY_KNOWS,
        "contradicted itself",
    ),
    "settlement against the bank of which no admin was emailed": (
        lambda batch: batch.human.insisted.add(batch.paid),
        ViolationKind.NOBODY_KNOWS,
        "no admin",
    ),
    "lease outlives its worker": (
        _sql("update ops.batch_leases set token = 'x', expires_at = now() + interval '1 hour'"),
        ViolationKind.UNEXPLAINED,
        "still leased",
    ),
}


def test_correct_books_have_no_violations(batch: FinishedBatch) -> None:
    statuses = batch.company.statuses(batch.batch_id)
    assert statuses == ["completed", "submitted", "returned", "failed", "failed", "failed"]
    assert batch.check() == []


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_violation_is_detected(batch: FinishedBatch, name: str) -> None:
    corrupt, kind, message = CORRUPTIONS[name]
    corrupt(batch)
    assert [one for one in batch.check() if one.kind is kind and message in one.message]


def test_violation_kinds_are_all_covered() -> None:
    assert {kind for _, kind, _ in CORRUPTIONS.values()} == set(ViolationKind)


def test_request_is_sent_again_only_after_the_bank_was_asked(batch: FinishedBatch) -> None:
    bank = batch.worker.bank
    before = len(check_resends(bank.control))
    batch_id = batch.company.batch([CENTS])
    (sent,) = batch.company.transactions(batch_id)
    bank.control.inject_fault("error_before_commit", reference=str(sent.id))
    batch.worker.process(batch_id)
    batch.worker.heal()
    batch.worker.process(batch_id)
    assert batch.company.statuses(batch_id) == ["completed"]
    assert len(check_resends(bank.control)) == before

    headers = {"Authorization": f"Bearer {bank.api_key}", "Idempotency-Key": f"seedtrust-transaction-{sent.id}"}
    httpx.post(f"{bank.url}/v1/transfers", json={"reference": str(sent.id)}, headers=headers, trust_env=False)

    (*_, violation) = check_resends(bank.control)
    assert violation.kind is ViolationKind.SENT_WITHOUT_PERMISSION
    assert "before the bank had said" in violation.message


def test_known_or_explained_unknown_transfer_is_no_violation(batch: FinishedBatch) -> None:
    for status in ("completed", "accepted", "rejected", "returned"):
        batch.worker.bank.control.add_unknown_transfer(
            f"another customer's {status} one", 100, method="ach", status=status
        )
    batch.worker.bank.control.add_unknown_transfer(NOBODYS_NUMBER)
    batch.worker.heal()
    assert batch.check() == []
    batch.sql("update ops.unknown_transfers set explained_at = now()")
    batch.sql("update ops.alerts set resolved_at = now() where rule = 'unknown_transfer'")
    assert batch.check() == []


@pytest.mark.parametrize("banned", ["all", "the sent transaction", "another"])
def test_send_ban_is_checked_by_the_banks_request_ids(batch: FinishedBatch, banned: str) -> None:
    before = last_request_id(batch.worker.bank.control)
    batch_id = batch.company.batch([CENTS])
    (sent,) = batch.company.transactions(batch_id)
    ids = {"all": None, "the sent transaction": frozenset([sent.id]), "another": frozenset([batch.paid])}[banned]

    def violations(*, until: int | None) -> list[Violation]:
        return batch.check(is_final=False, bans=(SendBan("sending was halted", before, until, ids),))

    batch.worker.process(batch_id)

    assert violations(until=before) == []
    assert [one.kind for one in violations(until=None)] == (
        [] if banned == "another" else [ViolationKind.SENT_WITHOUT_PERMISSION]
    )


def test_open_items_are_allowed_before_the_final_check(batch: FinishedBatch) -> None:
    batch.set(batch.preflight_failed, "status = 'pending'")
    _unpaid_batch(batch, "queued")
    assert batch.check(is_final=False) == []
    assert len(batch.check()) == 3


def test_held_or_halted_batch_may_stay_open(batch: FinishedBatch) -> None:
    _unpaid_batch(batch, "held")
    evaluate_health(batch.company.sessions)
    assert batch.check() == []
    _unpaid_batch(batch, "queued")
    assert len(batch.check()) == 2
    batch.sql("insert into ops.switches (name) values ('transfers_halted')")
    assert batch.check() == []


def test_alert_explains_only_its_own_incident(batch: FinishedBatch) -> None:
    batch.worker.bank.control.forget_key(f"seedtrust-transaction-{batch.submitted}")
    batch.sql(
        "insert into ops.alerts (rule, subject, severity) values ('amount_differs', :subject, 'CRITICAL')",
        subject=f"transaction {batch.submitted}",
    )
    assert len(batch.check()) == 1
    batch.sql("update ops.alerts set rule = 'transfer_forgotten_by_bank'")
    assert batch.check() == []


def test_row_counts_other_violation_kinds_as_unexplained() -> None:
    row = build_row("resets", 7, [Violation(kind, "a message") for kind in ViolationKind])
    assert (row.cases, row.double, row.lost, row.without_row, row.unnotified) == (7, 1, 1, 1, 1)
    assert row.unexplained == len(ViolationKind) - 4
