"""Report requests are met oldest first and once each: twice, at once, after a death, and where a person names one."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.reports import builder, generator
from seedtrust_ops.domain.reports.request_queue import claim_request
from seedtrust_ops.jobs.report_generation import report_generation_schedule
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import ReportRequest
from seedtrust_ops_tests.jobs.report_requests import address, age, ask, row, run, run_and_tell, sentence, told
from seedtrust_ops_tests.support.factories import BuiltCase, Company

pytestmark = pytest.mark.usefixtures("whole_environment")


def test_a_second_run_makes_and_sends_nothing(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    ask(company, "account_balances")
    assert run_and_tell()["made"]
    again = run_and_tell()
    assert (again["made"], again["failed"], again["letters_sent"]) == ([], [], 0)
    assert len(mailbox.control.letters()) == 1


def test_two_runs_at_once_share_the_queue(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    requests = [ask(company, "account_balances") for _ in range(12)]
    results: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(run_and_tell())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for result in results for number in result["made"]) == requests
    assert len(mailbox.control.letters()) == 12
    assert {row(company, number).status for number in requests} == {3}


def test_requests_are_met_oldest_first(company: Company, case: BuiltCase) -> None:
    now = datetime.now(UTC)
    ages = [3, 1, 2]
    numbers = [ask(company, "account_balances", requested_at=now - timedelta(hours=hours)) for hours in ages]
    assert run_and_tell()["made"] == [numbers[0], numbers[2], numbers[1]]


def test_a_dead_worker_s_request_is_taken_again_after_ten_minutes(
    company: Company, case: BuiltCase, mailbox: MailboxProcess
) -> None:
    number = ask(company, "account_balances")
    with company.sessions.begin() as session:
        dead = claim_request(session)
    assert dead is not None
    age(company, number, 9)
    assert run_and_tell()["made"] == []
    age(company, number, 10.1)
    assert run_and_tell()["made"] == [number]
    assert len(mailbox.control.letters()) == 1


def test_a_legacy_worker_s_dead_request_is_taken_too(company: Company, case: BuiltCase) -> None:
    number = ask(company, "account_balances", status=2)
    age(company, number, 11)
    assert run_and_tell()["made"] == [number]


def test_a_request_whose_workers_all_die_fails_after_three_tries_and_its_requester_is_told(
    company: Company, case: BuiltCase, mailbox: MailboxProcess
) -> None:
    number = ask(company, "account_balances")
    for _ in range(3):
        with company.sessions.begin() as session:
            assert claim_request(session) is not None
        age(company, number, 11)
    assert run_and_tell()["failed"] == [number]
    failed = row(company, number)
    assert failed.status == 4
    assert "broken off 3 times" in str(failed.error)
    (letter,) = mailbox.control.letters(address(company, number))
    assert "broken off 3 times" in " ".join(letter.text.split())


def test_a_worker_that_comes_back_after_another_took_its_request_changes_and_sends_nothing(
    company: Company, case: BuiltCase, outside: OutsideWorld, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = ask(company, "account_balances")
    build = builder.build_report
    nested: list[Any] = []

    def slow(*arguments: Any, **options: Any) -> builder.BuiltReport:
        built = build(*arguments, **options)
        if not nested:
            nested.append(None)
            age(company, number, 11)
            nested[0] = run_and_tell()["made"]
        return built

    monkeypatch.setattr(generator, "build_report", slow)
    late = run_and_tell()
    assert nested == [[number]]
    assert (late["made"], late["failed"]) == ([], [])
    assert row(company, number).status == 3
    assert len(mailbox.control.letters()) == len(outside.storage.keys("reports/")) == 1


def test_the_schedule_launches_only_where_something_waits(company: Company, case: BuiltCase) -> None:
    def tick() -> Any:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime.now(UTC),
            resources={"database": DatabaseResource()},
            repository_def=defs.get_repository_def(),
        )
        return report_generation_schedule.evaluate_tick(context)

    assert tick().skip_message == "No report is asked for and no letter is due."
    number = ask(company, "account_balances")
    assert tick().run_requests[0].tags["seedtrust/reason"].startswith("1 report requests")
    with company.sessions.begin() as session:
        claim_request(session)
    assert not tick().run_requests
    age(company, number, 11)
    assert tick().run_requests


def test_a_person_can_have_one_report_made_and_no_other(company: Company, mailbox: MailboxProcess) -> None:
    other, named = ask(company, "account_balances"), ask(company, "account_balances")
    assert told(run(named))["made"] == [named]
    assert (row(company, named).status, row(company, other).status) == (3, 1)
    assert len(mailbox.control.letters(address(company, named))) == 1


def test_a_person_can_have_a_report_made_that_failed(company: Company, case: BuiltCase) -> None:
    failed = ask(company, "case_ledger", params={})
    assert run_and_tell()["failed"] == [failed]
    with company.sessions.begin() as session:
        session.get_one(ReportRequest, failed).params = {"case_id": case.case_id}
    assert told(run(failed))["made"] == [failed]
    assert (row(company, failed).status, row(company, failed).error) == (3, None)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"status": 3}, "was met, and its report is sent. Ask for a new one"),
        ({"status": 2, "started_at": datetime.now(UTC) + timedelta(hours=1)}, "is being worked on. Wait for that"),
    ],
)
def test_a_named_report_that_is_not_to_be_made_fails_the_run_with_a_sentence(
    company: Company, columns: dict[str, Any], words: str
) -> None:
    request_id = ask(company, "account_balances", **columns)
    result = run(request_id)
    assert sentence(result).startswith(f"Report request {request_id} {words}")
    assert row(company, request_id).status == columns["status"]


def test_a_number_of_no_report_fails_the_run_with_a_sentence(company: Company) -> None:
    assert sentence(run(999)) == "There is no report request 999. Check the number in the run's config."
