"""A person settles as the operators' role, and auto-heal corrects that as the jobs' role: nothing needs a superuser."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import URL, func, select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.transfers.settlement import SettleAs, Settlement, ask_bank, known_bank_id, settle
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import LedgerEntry
from seedtrust_ops_tests.deploy.conftest import APP, OPERATOR
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker, options_for, settings_for
from seedtrust_ops_tests.support.factories import Company

CENTS = 5_000
BALANCE = 9_000
SessionsAs = Callable[[str], sessionmaker[Session]]


@pytest.fixture
def sessions_as(roles: URL) -> Iterator[SessionsAs]:
    """Opens sessions as a role."""
    engines = []

    def open_sessions(role: str) -> sessionmaker[Session]:
        engines.append(create_application_engine(roles.set(username=role)))
        return sessionmaker(engines[-1])

    yield open_sessions
    for engine in engines:
        engine.dispose()


def end(worker: Worker, transaction_id: int, changes: list[str]) -> None:
    """Let the bank change the transfer, and the jobs record each change."""
    control = worker.bank.control
    act = {
        "complete": control.settle,
        "return": lambda: control.return_reference(str(transaction_id), "R01"),
        "dishonor": lambda: control.dishonor_reference(str(transaction_id)),
    }
    for change in changes:
        act[change]()
        worker.heal()


@pytest.mark.parametrize(
    ("before", "settle_as", "after", "expected"),
    [
        ([], SettleAs.FAILED, ["complete"], ("completed", -CENTS)),
        (["complete"], SettleAs.FAILED, ["return"], ("returned", 0)),
        (["complete"], SettleAs.FAILED, ["return", "dishonor"], ("returned", 0)),
        (["complete"], SettleAs.RETURNED, [], ("returned", 0)),
        (["complete", "return"], SettleAs.FAILED, ["dishonor"], ("completed", -CENTS)),
        (["complete", "return"], SettleAs.COMPLETED, ["dishonor"], ("completed", -CENTS)),
        (["complete", "return", "dishonor"], SettleAs.COMPLETED, ["return"], ("returned", 0)),
        (["complete", "return", "dishonor"], SettleAs.FAILED, [], ("failed", 0)),
    ],
    ids=str,
)
def test_newer_answer_corrects_a_settlement_as_the_jobs_role(
    sessions_as: SessionsAs,
    company: Company,
    bank: BankProcess,
    before: list[str],
    settle_as: SettleAs,
    after: list[str],
    expected: tuple[str, int],
) -> None:
    worker = Worker(company, bank, settings_for(bank), options_for(bank))
    case = company.case(balance_cents=BALANCE)
    batch_id, transaction_id = worker.submit_ach(case, CENTS)
    jobs = replace(worker, company=Company(sessions_as(APP), company.cipher))
    end(jobs, transaction_id, before)

    operators = sessions_as(OPERATOR)
    with operators() as session:
        known = known_bank_id(session, transaction_id)
    answer = ask_bank(worker.open_bank, transaction_id, known)
    decision = Settlement(transaction_id, settle_as, "as Huntington says", "ana", True, unknown_grace_seconds=0)
    with operators.begin() as session:
        attest(session, Operator("ana"), "as Huntington says")
        settle(session, decision, answer)
    end(jobs, transaction_id, after)

    moved = company.balance_cents(case.account_id) - BALANCE
    with company.sessions() as session:
        entries = session.scalars(select(func.sum(LedgerEntry.amount_cents))).one() - BALANCE
    assert (company.statuses(batch_id)[0], moved, entries) == (expected[0], expected[1], expected[1])
    assert company.unbalanced_accounts() == []
