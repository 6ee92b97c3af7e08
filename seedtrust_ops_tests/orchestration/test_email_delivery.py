"""Every run that queues emails delivers them itself, and nothing but the mail server is needed for it."""

import pytest

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Notification
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.jobs.report_requests import request_report
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("bank_environment", "mail_environment", "no_retry_delays")
HEAL = "auto_heal_huntington_batches"
BAD_NAME = "x" * 36


def subjects(mailbox: MailboxProcess) -> list[str]:
    return [email.subject for email in mailbox.control.emails()]


def queue_email(company: Company) -> None:
    case = company.case()
    with company.sessions.begin() as session:
        session.add(
            Notification(
                dedupe_key=f"transfer-returned:1:{case.specialist_id}",
                kind="transfer-returned",
                recipient_id=case.specialist_id,
                recipient_email="specialist@example.test",
                subject="",
                variables={
                    "case_number": "ST-1",
                    "disbursement_request_id": 1,
                    "transaction_id": 1,
                    "amount_cents": 100,
                    "payee_name": "Dana",
                    "return_code": "R03",
                },
            )
        )


def test_batch_run_sends_one_email_for_37_failures(company: Company, mailbox: MailboxProcess) -> None:
    case = company.case()
    batch_id = company.batch([100] * 3, case=case)
    for _ in range(37):
        company.transaction(batch_id, company.request(case, 100), 100, payee_name=BAD_NAME)
    assert process(batch_id).success
    (email,) = mailbox.control.emails()
    assert email.subject == f"37 payments of batch {batch_id} failed"
    assert email.text.count("1 to 35 printable characters") == 37


def test_batch_run_of_which_all_failed_sends_the_email(company: Company, mailbox: MailboxProcess) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    company.transaction(batch_id, company.request(case, 100), 100, payee_name=BAD_NAME)
    assert not process(batch_id).success
    assert subjects(mailbox) == [f"1 payment of batch {batch_id} failed"]


def test_healing_sends_its_emails_without_a_bucket(
    company: Company, bank: BankProcess, mailbox: MailboxProcess, set_variables: SetVariables
) -> None:
    set_variables(REPORTS_BUCKET=None)
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 500), 500, method="ach")
    assert process(batch_id).success
    bank.control.return_reference(str(transaction_id), "R03")
    assert run(HEAL).success
    (subject,) = subjects(mailbox)
    assert subject.startswith("Payment returned by the bank: case CASE-")


@pytest.mark.parametrize(
    ("job", "missing"),
    [(HEAL, "HUNTINGTON_API_URL"), (HEAL, "HUNTINGTON_API_KEY"), ("report_generation", "REPORTS_BUCKET")],
)
def test_emails_that_are_due_leave_although_the_job_cannot_do_its_work(
    job: str, missing: str, company: Company, mailbox: MailboxProcess, set_variables: SetVariables
) -> None:
    set_variables(**{missing: None})
    request_report(company, "account_balances")
    queue_email(company)
    result = run(job)
    assert not result.success
    assert missing in result.messages[0]
    assert subjects(mailbox) == ["Payment returned by the bank: case ST-1"]
