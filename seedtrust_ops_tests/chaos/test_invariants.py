"""The checker finds every kind of broken promise: each is planted by hand into books that were sound before."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.chaos.invariants import Ban, check, last_request
from seedtrust_ops_tests.chaos.violations import Kind, Violation, as_row
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, rules_for, settings_for
from seedtrust_ops_tests.support.factories import Company

CENTS = 5_000


@dataclass(frozen=True)
class Scene:
    """A finished batch in which every ending occurs once, and the means to spoil it."""

    worker: Worker
    batch_id: int
    paid: int
    submitted: int
    returned: int
    rejected: int
    refused: int
    unchecked: int

    @property
    def company(self) -> Company:
        return self.worker.company

    def sql(self, statement: str, **values: object) -> None:
        with self.company.sessions.begin() as session:
            session.execute(text(statement), values)

    def set(self, transaction_id: int, assignments: str) -> None:
        self.sql(f"update huntington_transactions set {assignments} where id = :id", id=transaction_id)

    def check(self, *, quiet: bool = True, bans: tuple[Ban, ...] = ()) -> list[Violation]:
        return check(self.company.sessions, self.worker.bank.control, quiet=quiet, bans=bans)


@pytest.fixture
def scene(company: Company, bank: BankProcess) -> Scene:
    worker = Worker(company, bank, settings_for(bank), rules_for(bank))
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
        "unchecked": transaction(routing_number="123456789"),
    }
    worker.process(batch_id)
    bank.control.return_reference(str(ids["returned"]), "R03")
    bank.control.reject_reference(str(ids["rejected"]), "account is frozen")
    worker.heal()
    return Scene(worker, batch_id, **ids)


def _pay_again(scene: Scene) -> None:
    scene.worker.bank.control.forget(f"seedtrust-transaction-{scene.paid}")
    scene.set(scene.paid, "status = 'pending', bank_transfer_id = null")
    scene.sql("delete from ledger_entries where huntington_transaction_id = :id", id=scene.paid)
    scene.sql("update disbursement_requests set status = 'approved' where status = 'paid'")
    scene.sql("update huntington_batches set status = 'queued'")
    scene.worker.process(scene.batch_id)


def _pay_the_request_by_another(scene: Scene) -> None:
    scene.sql("update disbursement_requests set status = 'approved' where status = 'paid'")
    scene.sql(
        "update huntington_transactions set disbursement_request_id = null where id = :id",
        id=scene.paid,
    )
    batch_id = scene.company.batch()
    with scene.company.sessions() as session:
        request_id = session.scalar(
            text("select id from disbursement_requests r where status = 'approved' order by id limit 1")
        )
    scene.company.transaction(batch_id, request_id, CENTS)
    scene.worker.process(batch_id)
    scene.set(scene.paid, f"disbursement_request_id = {request_id}")


def _post_without_record(scene: Scene) -> None:
    scene.sql("alter table ops.transfer_attempts disable trigger user")
    scene.sql("delete from ops.transfer_attempts where transaction_id = :id", id=scene.paid)


def _plant_beside(scene: Scene) -> None:
    scene.worker.bank.control.plant_transfer(str(scene.paid), CENTS)


def _unpaid_batch(scene: Scene, status: str) -> None:
    scene.company.batch([100], status=status)


def _set(who: str, assignments: str) -> Callable[[Scene], None]:
    return lambda scene: scene.set(getattr(scene, who), assignments)


def _sql(statement: str) -> Callable[[Scene], None]:
    return lambda scene: scene.sql(statement)


PLANTED: dict[str, tuple[Callable[[Scene], None], Kind, str]] = {
    "a key pays twice": (_pay_again, Kind.DOUBLE_PAYMENT, "moved money 2 times"),
    "a request is paid by two transactions": (_pay_the_request_by_another, Kind.DOUBLE_PAYMENT, "was paid by 2"),
    "somebody else pays too, and nobody is told": (_plant_beside, Kind.DOUBLE_PAYMENT, "no alert tells"),
    "a request is not on record": (_post_without_record, Kind.SENT_WITHOUT_LEAVE, "only 0 are on record"),
    "a draft is sent": (
        _sql("update huntington_batches set status = 'draft'"),
        Kind.SENT_WITHOUT_LEAVE,
        "nobody claimed",
    ),
    "a batch without a claim is sent": (
        _sql("delete from ops.batch_leases"),
        Kind.SENT_WITHOUT_LEAVE,
        "nobody claimed",
    ),
    "a transaction without a request is sent": (
        _set("paid", "disbursement_request_id = null"),
        Kind.SENT_WITHOUT_LEAVE,
        "belongs to no request",
    ),
    "another amount is sent": (_set("paid", "amount_cents = 1"), Kind.SENT_WITHOUT_LEAVE, "another amount"),
    "a refused payment is called completed": (
        _set("refused", "status = 'completed'"),
        Kind.LOST_PAYMENT,
        "never moved its money",
    ),
    "a payment that is under way is called completed": (
        _set("submitted", "status = 'completed'"),
        Kind.NOT_THE_BANKS_WORD,
        "the bank says 'accepted'",
    ),
    "a completed payment is called returned": (
        _set("paid", "status = 'returned'"),
        Kind.NOT_THE_BANKS_WORD,
        "the bank says 'completed'",
    ),
    "a return bears another code": (_set("returned", "failure_reason = 'R01'"), Kind.NOT_THE_BANKS_WORD, "R01"),
    "a balance is not its ledger's sum": (
        _sql("update accounts set balance_cents = balance_cents + 1"),
        Kind.BOOKS_DIFFER,
        "and its ledger",
    ),
    "a payment is not in the ledger": (
        _sql("delete from ledger_entries where kind = 'disbursement'"),
        Kind.LOST_PAYMENT,
        "the ledger has 0",
    ),
    "a payment is in the ledger with other cents": (
        _sql("update ledger_entries set amount_cents = amount_cents - 1 where kind = 'disbursement'"),
        Kind.BOOKS_DIFFER,
        "not what the bank moved",
    ),
    "what came back is not in the ledger": (
        _sql("delete from ledger_entries where kind = 'reversal'"),
        Kind.BOOKS_DIFFER,
        "its ledger entries are ['disbursement']",
    ),
    "a request is paid without a payment": (
        _sql("update disbursement_requests set status = 'paid'"),
        Kind.BOOKS_DIFFER,
        "with 0 completed",
    ),
    "a paid request is open to be paid again": (
        _sql("update disbursement_requests set status = 'approved'"),
        Kind.BOOKS_DIFFER,
        "with 1 completed",
    ),
    "a payment is called failed": (
        _set("submitted", "status = 'failed', failure_reason = 'limit_exceeded'"),
        Kind.LOST_PAYMENT,
        "the bank paid it all the same",
    ),
    "a failure has no reason that counts": (
        _set("unchecked", "failure_reason = 'timeout after 30 s'"),
        Kind.UNEXPLAINED,
        "neither the bank's word nor the check's",
    ),
    "a refusal is made up": (
        _set("unchecked", "failure_reason = 'limit_exceeded'"),
        Kind.UNEXPLAINED,
        "neither the bank's word nor the check's",
    ),
    "a payment is left pending": (_set("unchecked", "status = 'pending'"), Kind.LOST_PAYMENT, "nobody will send it"),
    "a payment is left in doubt": (_set("paid", "status = 'processing'"), Kind.UNEXPLAINED, "no alert says why"),
    "the bank forgets and nobody is told": (
        lambda scene: scene.worker.bank.control.forget(f"seedtrust-transaction-{scene.submitted}"),
        Kind.UNEXPLAINED,
        "no alert tells",
    ),
    "a queued batch is left": (lambda scene: _unpaid_batch(scene, "queued"), Kind.UNEXPLAINED, "rests as 'queued'"),
    "a batch is called completed": (
        _sql("update huntington_batches set status = 'completed'"),
        Kind.UNEXPLAINED,
        "rests as 'completed'",
    ),
    "a finished batch has no end": (
        _sql("update huntington_batches set finished_at = null"),
        Kind.UNEXPLAINED,
        "without having been finished",
    ),
    "a lease outlives its worker": (
        _sql("update ops.batch_leases set token = 'x', expires_at = now() + interval '1 hour'"),
        Kind.UNEXPLAINED,
        "still held",
    ),
}


def test_sound_books_hold_nothing_to_find(scene: Scene) -> None:
    statuses = scene.company.statuses(scene.batch_id)
    assert statuses == ["completed", "submitted", "returned", "failed", "failed", "failed"]
    assert scene.check() == []


@pytest.mark.parametrize("name", PLANTED)
def test_checker_finds(scene: Scene, name: str) -> None:
    plant, kind, words = PLANTED[name]
    plant(scene)
    assert [one for one in scene.check() if one.kind is kind and words in one.sentence]


def test_every_kind_of_violation_is_planted() -> None:
    assert {kind for _, kind, _ in PLANTED.values()} == set(Kind)


@pytest.mark.parametrize("whom", ["all", "the sender", "another"])
def test_what_is_sent_in_a_forbidden_time_is_found_by_the_banks_request_numbers(scene: Scene, whom: str) -> None:
    before = last_request(scene.worker.bank.control)
    batch_id = scene.company.batch([CENTS])
    (sent,) = scene.company.transactions(batch_id)
    ids = {"all": None, "the sender": frozenset([sent.id]), "another": frozenset([scene.paid])}[whom]

    def found(*, until: int | None) -> list[Violation]:
        return scene.check(quiet=False, bans=(Ban("all was halted", before, until, ids),))

    scene.worker.process(batch_id)

    assert found(until=before) == []
    assert [one.kind for one in found(until=None)] == ([] if whom == "another" else [Kind.SENT_WITHOUT_LEAVE])


def test_what_is_merely_open_breaks_nothing_before_all_is_quiet(scene: Scene) -> None:
    scene.set(scene.unchecked, "status = 'pending'")
    _unpaid_batch(scene, "queued")
    assert scene.check(quiet=False) == []
    assert len(scene.check()) == 3


def test_held_and_halted_payments_rest_by_a_persons_decision(scene: Scene) -> None:
    _unpaid_batch(scene, "held")
    assert scene.check() == []
    _unpaid_batch(scene, "queued")
    assert len(scene.check()) == 2
    scene.sql("insert into ops.switches (name) values ('transfers_halted')")
    assert scene.check() == []


def test_alert_of_the_right_rule_explains_and_one_of_another_does_not(scene: Scene) -> None:
    scene.worker.bank.control.forget(f"seedtrust-transaction-{scene.submitted}")
    scene.sql(
        "insert into ops.alerts (rule, subject, severity) values ('amount_differs', :who, 'CRITICAL')",
        who=f"transaction {scene.submitted}",
    )
    assert len(scene.check()) == 1
    scene.sql("update ops.alerts set rule = 'transfer_forgotten_by_bank'")
    assert scene.check() == []


def test_row_of_the_table_counts_what_is_neither_double_nor_lost_as_unexplained() -> None:
    row = as_row("resets", 7, [Violation(kind, "a sentence") for kind in Kind])
    assert (row.cases, row.double, row.lost, row.unexplained) == (7, 1, 1, len(Kind) - 2)
