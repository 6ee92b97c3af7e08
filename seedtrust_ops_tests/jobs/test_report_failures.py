"""A report that cannot be generated or sent fails alone, with a message, and its requester is notified."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from seedtrust_ops.domain.outbox.dispatcher import DeliveryReport
from seedtrust_ops.domain.outbox.email_sink import INACTIVE_RECIPIENT
from seedtrust_ops.domain.reports import generator, request_limit
from seedtrust_ops.orchestration import email_delivery
from seedtrust_ops.orchestration.email_delivery import send_queued_emails
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Notification, ReportClaim, ReportRequest, User
from seedtrust_ops_tests.jobs.report_requests import (
    job_result,
    request_report,
    request_row,
    requester_email,
    run,
    run_all,
)
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.test_email_addresses import INVALID as INVALID_ADDRESSES

pytestmark = pytest.mark.usefixtures("full_environment")

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "horoscope"}, "Unknown report 'horoscope'. Choose one of case_ledger"),
    "missing case": ({"kind": "case_ledger"}, "needs a case id"),
    "unknown case": (
        {"kind": "case_ledger", "params": {"case_id": 999_999}},
        "Case 999999 does not exist",
    ),
    "case id is text": ({"kind": "case_ledger", "params": {"case_id": "first"}}, "needs a case id"),
    "case id too large": ({"kind": "case_ledger", "params": {"case_id": 10**30}}, f"'{10**30}' is none"),
    "case id of 50 digits": (
        {"kind": "case_ledger", "params": {"case_id": "0" * 19 + "1" * 31}},
        f"needs a case id (`case_id`), and '{'0' * 19}{'1' * 31}' is none",
    ),
    "case id of 5,020 digits": (
        {"kind": "case_ledger", "params": {"case_id": "9" * 5_020}},
        f"needs a case id (`case_id`), and '{'9' * 60}' is none",
    ),
    "unknown parameter": (
        {"kind": "disbursements", "params": {"form": "2026-01-01"}},
        "The report 'disbursements' has no parameter 'form'.",
    ),
    "parameters of another application": (
        {"kind": "disbursements", "params": {"start": "2026-01-01", "end": "2026-01-31"}},
        "The report 'disbursements' has no parameter 'end'. It takes from, status, to.",
    ),
    "case of disbursements": (
        {"kind": "disbursements", "params": {"case_id": 1}},
        "The report 'disbursements' has no parameter 'case_id'.",
    ),
    "unreadable parameters": ({"kind": "disbursements", "params": {"from": "x" * 100_000}}, "cannot be read"),
    "a list": ({"kind": "case_ledger", "params": [1]}, "report's parameters cannot be read"),
    "not a date": ({"kind": "disbursements", "params": {"from": "yesterday"}}, "'yesterday', which is not a date"),
    "impossible date": ({"kind": "disbursements", "params": {"to": "2026-02-30"}}, "'2026-02-30', which is not a date"),
    "reversed dates": (
        {"kind": "huntington_transfers", "params": {"from": "2026-02-02", "to": "2026-02-01"}},
        "start date (2026-02-02) is after its end date (2026-02-01)",
    ),
    "unknown status": ({"kind": "disbursements", "params": {"status": "lost"}}, "Unknown status 'lost'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_request_fails_alone_and_notifies_its_requester(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, bad: str
) -> None:
    columns, message = BAD[bad]
    request_id = request_report(company, **columns)
    good = request_report(company, "account_balances")
    result = run()
    assert result.success
    assert job_result(result)["generated"] == [good]
    failed = request_row(company, request_id)
    assert failed.status == 4
    assert message in str(failed.error)
    (email,) = mailbox.control.emails(requester_email(company, request_id))
    assert " ".join(str(failed.error).split()) in " ".join(email.text.split())
    with company.sessions() as session:
        assert session.scalars(select(ReportClaim)).all() == []


@pytest.mark.parametrize(
    ("user", "message"), [({"email": ""}, "can't be used: it is empty"), ({"is_active": False}, "no longer active")]
)
def test_unreachable_requester_gets_no_email_and_others_continue(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, user: dict[str, Any], message: str
) -> None:
    request_id, good = request_report(company, "account_balances", **user), request_report(company, "account_balances")
    assert run_all()["generated"] == [good]
    assert request_row(company, request_id).status == 4
    assert message in str(request_row(company, request_id).error)
    assert len(mailbox.control.emails()) == 1


def test_report_is_generated_only_for_an_address_that_can_be_emailed(
    company: Company, case: BuiltCase, mailbox: MailboxProcess
) -> None:
    refused = {
        request_report(company, "account_balances", email=f"{address}{' ' * number}"): problem
        for number, (address, problem) in enumerate(INVALID_ADDRESSES)
    }
    accepted = request_report(company, "account_balances", email="dana@münchen.example")
    run_all()
    for request_id, problem in refused.items():
        row = request_row(company, request_id)
        assert (row.status, problem in str(row.error)) == (4, True)
    assert request_row(company, accepted).status == 3
    assert [one.recipient for one in mailbox.control.emails()] == ["dana@xn--mnchen-3ya.example"]
    with company.sessions() as session:
        assert session.scalars(select(Notification.status)).all() == ["sent"]


@pytest.mark.parametrize("max_bytes", [generator.MAX_ATTACHMENT_BYTES, 10], ids=["attached", "linked"])
def test_report_of_a_user_deactivated_before_delivery_is_not_sent(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    monkeypatch.setattr(generator, "MAX_ATTACHMENT_BYTES", max_bytes)
    request_id = request_report(company, "account_balances")
    address = requester_email(company, request_id)

    def deactivate_and_send(*arguments: Any, **options: Any) -> DeliveryReport:
        with company.sessions.begin() as session:
            session.execute(update(User).where(User.email == address).values(is_active=False))
        return send_queued_emails(*arguments, **options)

    monkeypatch.setattr(email_delivery, "send_queued_emails", deactivate_and_send)
    assert run_all()["generated"] == [request_id]
    assert mailbox.control.emails() == []
    with company.sessions() as session:
        (email,) = session.scalars(select(Notification))
    assert (email.status, email.last_error) == ("failed", INACTIVE_RECIPIENT)


def test_requests_beyond_the_limit_fail_with_one_email(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_limit, "MAX_WAITING_REPORTS", 1)
    accepted = request_report(company, "account_balances", requested_at=datetime(2026, 3, 3, tzinfo=UTC))
    with company.sessions.begin() as session:
        user_id = session.get_one(ReportRequest, accepted).user_id
        session.add_all([ReportRequest(user_id=user_id, kind="account_balances") for _ in range(3)])
    result = run_all()
    assert (result["generated"], result["refused"]) == ([accepted], 3)
    emails = mailbox.control.emails(requester_email(company, accepted))
    assert sorted(email.subject for email in emails) == [
        "3 report requests not accepted",
        "Your report is ready: Account balances",
    ]


def test_missing_bucket_fails_the_request_and_names_the_bucket(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, set_variables: SetVariables
) -> None:
    set_variables(REPORTS_BUCKET="no-such-bucket")
    request_id = request_report(company, "account_balances")
    assert run().success
    assert "There is no S3 bucket no-such-bucket" in str(request_row(company, request_id).error)
    assert len(mailbox.control.emails(requester_email(company, request_id))) == 1


def test_storage_outage_requeues_and_fails_after_three_tries(
    company: Company, case: BuiltCase, set_variables: SetVariables
) -> None:
    set_variables(AWS_ENDPOINT_URL="http://127.0.0.1:9")
    request_id = request_report(company, "account_balances")
    for tries in (1, 2, 3):
        result = run_all()
        assert result["failed" if tries == 3 else "requeued"] == [request_id]
        assert run_all()["requeued"] == []
        with company.sessions.begin() as session:
            session.execute(update(ReportClaim).values(not_before=datetime.now(UTC)))
    assert request_row(company, request_id).status == 4
    assert "Failed permanently after 3 attempts." in str(request_row(company, request_id).error)


def test_missing_bucket_variable_fails_the_job_only_with_work(
    company: Company, case: BuiltCase, set_variables: SetVariables
) -> None:
    set_variables(REPORTS_BUCKET=None)
    assert run().success
    request_id = request_report(company, "account_balances")
    result = run()
    assert not result.success
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert "REPORTS_BUCKET is not set" in str(failure.step_failure_data.user_failure_data)
    assert request_row(company, request_id).status == 1
