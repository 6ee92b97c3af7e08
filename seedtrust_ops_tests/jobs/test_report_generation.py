"""Report requests are fulfilled oldest first and exactly once: repeated runs, concurrent runs, crashes, one by id."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.reports import file_builder, generator
from seedtrust_ops.domain.reports.request_queue import claim_next_request
from seedtrust_ops.jobs.report_generation import report_generation_schedule
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops.tables import ReportRequest
from seedtrust_ops_tests.jobs.report_requests import (
    backdate_start,
    failure_message,
    job_result,
    request_report,
    request_row,
    requester_email,
    run,
    run_all,
)
from seedtrust_ops_tests.support.factories import BuiltCase, Company

pytestmark = pytest.mark.usefixtures("full_environment")


def test_second_run_generates_and_sends_nothing(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    request_report(company, "account_balances")
    assert run_all()["generated"]
    again = run_all()
    assert (again["generated"], again["failed"], again["emails_sent"]) == ([], [], 0)
    assert len(mailbox.control.emails()) == 1


def test_concurrent_runs_share_the_queue(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    requests = [request_report(company, "account_balances") for _ in range(12)]
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(run_all())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(request_id for result in results for request_id in result["generated"]) == requests
    assert len(mailbox.control.emails()) == 12
    assert {request_row(company, request_id).status for request_id in requests} == {3}


def test_requests_are_fulfilled_oldest_first(company: Company, case: BuiltCase) -> None:
    now = datetime.now(UTC)
    ages = [3, 1, 2]
    request_ids = [
        request_report(company, "account_balances", requested_at=now - timedelta(hours=hours)) for hours in ages
    ]
    assert run_all()["generated"] == [request_ids[0], request_ids[2], request_ids[1]]


def test_crashed_workers_request_is_claimed_again_after_ten_minutes(
    company: Company, case: BuiltCase, mailbox: MailboxProcess
) -> None:
    request_id = request_report(company, "account_balances")
    with company.sessions.begin() as session:
        crashed = claim_next_request(session)
    assert crashed is not None
    backdate_start(company, request_id, 9)
    assert run_all()["generated"] == []
    backdate_start(company, request_id, 10.1)
    assert run_all()["generated"] == [request_id]
    assert len(mailbox.control.emails()) == 1


def test_legacy_workers_stale_request_is_claimed_too(company: Company, case: BuiltCase) -> None:
    request_id = request_report(company, "account_balances", status=2)
    backdate_start(company, request_id, 11)
    assert run_all()["generated"] == [request_id]


def test_request_fails_after_three_crashes_and_notifies_requester(
    company: Company, case: BuiltCase, mailbox: MailboxProcess
) -> None:
    request_id = request_report(company, "account_balances")
    for _ in range(3):
        with company.sessions.begin() as session:
            assert claim_next_request(session) is not None
        backdate_start(company, request_id, 11)
    assert run_all()["failed"] == [request_id]
    failed = request_row(company, request_id)
    assert failed.status == 4
    assert "interrupted 3 times" in str(failed.error)
    (email,) = mailbox.control.emails(requester_email(company, request_id))
    assert "interrupted 3 times" in " ".join(email.text.split())


def test_late_worker_changes_and_sends_nothing_after_losing_its_claim(
    company: Company,
    case: BuiltCase,
    external_services: ExternalServices,
    mailbox: MailboxProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request_id = request_report(company, "account_balances")
    build = file_builder.build_report
    nested: list[Any] = []

    def slow(*arguments: Any, **options: Any) -> file_builder.BuiltReport:
        built = build(*arguments, **options)
        if not nested:
            nested.append(None)
            backdate_start(company, request_id, 11)
            nested[0] = run_all()["generated"]
        return built

    monkeypatch.setattr(generator, "build_report", slow)
    late = run_all()
    assert nested == [[request_id]]
    assert (late["generated"], late["failed"]) == ([], [])
    assert request_row(company, request_id).status == 3
    assert len(mailbox.control.emails()) == len(external_services.storage.keys("reports/")) == 1


def test_schedule_launches_only_if_work_is_waiting(company: Company, case: BuiltCase) -> None:
    def tick() -> Any:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime.now(UTC),
            resources={"database": DatabaseResource()},
            repository_def=defs.get_repository_def(),
        )
        return report_generation_schedule.evaluate_tick(context)

    assert tick().skip_message == "No report request is waiting and no email is due."
    request_id = request_report(company, "account_balances")
    assert tick().run_requests[0].tags["seedtrust/reason"] == "waiting: 1 report request and 0 emails"
    with company.sessions.begin() as session:
        claim_next_request(session)
    assert not tick().run_requests
    backdate_start(company, request_id, 11)
    assert tick().run_requests


def test_one_report_can_be_generated_by_id(company: Company, mailbox: MailboxProcess) -> None:
    other, named = request_report(company, "account_balances"), request_report(company, "account_balances")
    assert job_result(run(named))["generated"] == [named]
    assert (request_row(company, named).status, request_row(company, other).status) == (3, 1)
    assert len(mailbox.control.emails(requester_email(company, named))) == 1


def test_failed_report_can_be_generated_by_id(company: Company, case: BuiltCase) -> None:
    failed = request_report(company, "case_ledger", params={})
    assert run_all()["failed"] == [failed]
    with company.sessions.begin() as session:
        session.get_one(ReportRequest, failed).params = {"case_id": case.case_id}
    assert job_result(run(failed))["generated"] == [failed]
    assert (request_row(company, failed).status, request_row(company, failed).error) == (3, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"status": 3}, "The report of request {id} was already sent. Request a new report"),
        (
            {"status": 2, "started_at": datetime.now(UTC) + timedelta(hours=1)},
            "Another worker is generating report request {id}. Wait for it",
        ),
    ],
)
def test_unclaimable_request_fails_the_run_with_the_reason(
    company: Company, columns: dict[str, Any], message: str
) -> None:
    request_id = request_report(company, "account_balances", **columns)
    result = run(request_id)
    assert failure_message(result).startswith(message.format(id=request_id))
    assert request_row(company, request_id).status == columns["status"]


def test_unknown_request_id_fails_the_run_with_the_reason(company: Company) -> None:
    assert failure_message(run(999)) == "Report request 999 does not exist. Check `report_id` in the run config."
