"""`settle_transfer` and `explain_transfer`: what the commands do, or which command to run instead."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import User
from seedtrust_ops_tests.deploy.conftest import APP, roles
from seedtrust_ops_tests.jobs.job_runner import JobResult, process, run
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

__all__ = ["roles"]

OPERATOR = "ana@example.test"

pytestmark = pytest.mark.usefixtures("bank_environment")


@pytest.fixture(autouse=True)
def operator(company: Company) -> None:
    with company.sessions.begin() as session:
        session.add(User(email=OPERATOR, full_name="Ana", role="admin"))


def launch(job: str, **config: Any) -> JobResult:
    config = {"operator": OPERATOR, "reason": "as Huntington says"} | config
    return run(job, {"ops": {job: {"config": config}}})


def submit_ach(company: Company) -> int:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 5_000), 5_000, method="ach")
    assert process(batch_id).success
    return transaction_id


def unknown_transfer(bank: BankProcess) -> str:
    bank_id = bank.control.insert_transfer("invoice 7", 5_000)["id"]
    assert run("auto_heal_huntington_batches").success
    return bank_id


def test_settle_transfer_does_what_the_command_does(company: Company, bank: BankProcess) -> None:
    transaction_id = submit_ach(company)
    bank.control.settle()
    result = launch("settle_transfer", transaction_id=transaction_id, as_status="completed")
    assert result.success, result.messages
    assert result.returned == {"transaction_id": transaction_id, "before": "submitted", "after": "completed"}
    assert company.ledger(transaction_id) == [("disbursement", -5_000)]


def test_explain_transfer_does_what_the_command_does(company: Company, bank: BankProcess) -> None:
    case = company.case(balance_cents=9_000)
    request_id = company.request(case, 5_000)
    result = launch("explain_transfer", bank_transfer_id=unknown_transfer(bank), request_id=request_id)
    assert result.success, result.messages
    assert result.returned["posted_cents"] == -5_000
    assert (company.balance_cents(case.account_id), company.request_status(request_id)) == (4_000, "paid")
    assert company.open_alerts() == []
    with company.sessions() as session:
        detail = session.scalars(text("select detail ->> 'as' from ops.audit_events where action = 'explain'")).one()
    assert detail == OPERATOR


@pytest.mark.parametrize("missing", ["operator", "reason"])
@pytest.mark.parametrize("job", ["settle_transfer", "explain_transfer"])
def test_person_and_reason_are_required(job: str, missing: str) -> None:
    result = launch(job, **{missing: ""})
    assert not result.success
    assert result.attempts == 1
    assert "No operator or no reason was given. Nothing was changed." in result.messages[0]


def test_jobs_role_is_told_which_command_to_run(
    company: Company, bank: BankProcess, roles: URL, set_variables: SetVariables
) -> None:
    transaction_id = submit_ach(company)
    bank_id = unknown_transfer(bank)
    set_variables(SEEDTRUST_DATABASE_URL=plain_url(roles.set(username=APP)))
    for job, config, command in (
        (
            "settle_transfer",
            {"transaction_id": transaction_id, "as_status": "failed", "contradict_bank": True},
            f"`seedtrust-ops transfers settle {transaction_id} --as-status failed`",
        ),
        (
            "explain_transfer",
            {"bank_transfer_id": bank_id, "request_id": company.request(company.case(), 5_000)},
            f"`seedtrust-ops transfers explain {bank_id} --request",
        ),
    ):
        result = launch(job, **config)
        assert not result.success
        assert result.attempts == 1
        assert command in result.messages[0]
    assert ("unknown_transfer", f"bank transfer {bank_id}") in company.open_alerts()
