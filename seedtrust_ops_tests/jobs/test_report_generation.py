"""Reports from request to mail box: every kind in every format, twice, at once, after a death, and with bad input."""

import csv
import hashlib
import io
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import openpyxl
import pytest
from pypdf import PdfReader
from sqlalchemy import select, text, update

from seedtrust_ops.config import environment
from seedtrust_ops.definitions import definitions
from seedtrust_ops.domain.reports import building, generating, pdf_file
from seedtrust_ops.domain.reports.requests import claim_request
from seedtrust_ops.jobs.report_generation import report_generation_schedule
from seedtrust_ops.resources.database import DatabaseResource
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.outside.world import OutsideWorld
from seedtrust_ops.tables import DisbursementRequest, LedgerEntry, Notification, ReportClaim, ReportRequest, User
from seedtrust_ops_tests.building import BuiltCase, Company

EVIL = '=HYPERLINK("https://evil.example","pay")'


@pytest.fixture(autouse=True)
def whole_environment(jobs_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    environment.cache_clear()


def run(report_id: int = 0) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def("report_generation")
    config = {"ops": {"report_generation": {"config": {"report_id": report_id}}}} if report_id else None
    return job.execute_in_process(run_config=config, raise_on_error=False)


def sentence(result: dg.ExecuteInProcessResult) -> str:
    """What a person reads of a run that failed."""
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    return str(failure.step_failure_data.user_failure_data.description)


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    output: dict[str, Any] = result.output_for_node("report_generation")
    return output


def run_and_tell() -> dict[str, Any]:
    return told(run())


def ask(company: Company, kind: str, format_name: str = "csv", params: Any = None, **columns: Any) -> int:
    """A request by a user of its own; `email` and `is_active` are the user's."""
    user = {name: columns.pop(name) for name in ("email", "is_active") if name in columns}
    with company.sessions.begin() as session:
        person = company._user(session, "admin")
        for name, value in user.items():
            setattr(person, name, value)
        session.flush()
        request = ReportRequest(user_id=person.id, kind=kind, format=format_name, params=params or {}, **columns)
        session.add(request)
        session.flush()
        return request.id


def row(company: Company, request_id: int) -> ReportRequest:
    with company.sessions() as session:
        return session.scalars(select(ReportRequest).where(ReportRequest.id == request_id)).one()


def address(company: Company, request_id: int) -> str:
    with company.sessions() as session:
        return session.scalars(
            select(User.email)
            .join(ReportRequest, ReportRequest.user_id == User.id)
            .where(ReportRequest.id == request_id)
        ).one()


def age(company: Company, request_id: int, minutes: float) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(ReportRequest)
            .where(ReportRequest.id == request_id)
            .values(started_at=datetime.now(UTC) - timedelta(minutes=minutes))
        )


@pytest.fixture
def case(company: Company) -> BuiltCase:
    """A case with 1,000.00, a fee of 12.50 and one request whose texts are formulas."""
    built = company.case(balance_cents=100_000)
    request_id = company.request(built, 4_321)
    with company.sessions.begin() as session:
        session.add(LedgerEntry(account_id=built.account_id, amount_cents=-1_250, kind="fee", memo=EVIL))
        session.execute(text(f"update accounts set balance_cents = 98750 where id = {built.account_id}"))
        session.execute(
            update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(description=EVIL)
        )
        session.execute(update(User).where(User.id == built.payee_id).values(full_name="Łucja José-Ñandú 李"))
    return built


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))


PARAMS: dict[str, Callable[[BuiltCase], dict[str, Any]]] = {
    "case_ledger": lambda case: {"case_id": case.case_id},
    "disbursements": lambda _: {"from": "2020-01-01", "to": "2099-12-31", "status": "approved"},
    "account_balances": lambda _: {},
    "huntington_transfers": lambda _: {"from": "2020-01-01", "to": "2099-12-31"},
}


@pytest.mark.parametrize("kind", PARAMS)
def test_every_kind_comes_in_every_format_by_mail_and_as_an_asset(
    company: Company, case: BuiltCase, outside: OutsideWorld, mailbox: MailboxProcess, kind: str
) -> None:
    batch_id = company.batch([700])
    (transaction,) = company.transactions(batch_id)
    requests = {one: ask(company, kind, one, PARAMS[kind](case)) for one in ("csv", "xlsx", "pdf")}
    result = run()
    assert result.success
    assert told(result)["made"] == list(requests.values())
    made = {one.metadata["request"].value: one for one in materializations(result)}
    files = {}
    for format_name, request_id in requests.items():
        request = row(company, request_id)
        assert (request.status, request.error) == (3, None)
        assert request.finished_at is not None
        (letter,) = mailbox.control.letters(address(company, request_id))
        ((name, content),) = letter.attachments.items()
        assert name.endswith(f".{format_name}")
        shown = {name: value.value for name, value in made[request_id].metadata.items()}
        assert made[request_id].asset_key == dg.AssetKey(["reports", kind])
        assert shown["sha256"] == hashlib.sha256(content).hexdigest()
        assert (shown["format"], shown["bytes"]) == (format_name, len(content))
        assert outside.storage.read(shown["where"].removeprefix(f"s3://{outside.storage.bucket}/")) == content
        files[format_name] = content
        rows = shown["rows"]
    lines = read_csv(files["csv"])
    assert len(lines) == rows + 1 > 1
    sheet = openpyxl.load_workbook(io.BytesIO(files["xlsx"])).worksheets[0]
    assert sheet["A1"].value.startswith("SeedTrust: ")
    header = int(sheet.freeze_panes[1:]) - 1
    assert [cell.value for cell in sheet[header]] == lines[0]
    assert sheet.max_row == header + rows
    assert sheet.auto_filter.ref is not None
    assert not [cell for line in sheet.iter_rows() for cell in line if cell.data_type == "f"]
    pages = PdfReader(io.BytesIO(files["pdf"])).pages
    words = " ".join(page.extract_text() for page in pages)
    assert f"Page 1 of {len(pages)}" in words
    assert "SeedTrust: " in words
    digits = company.cipher.decrypt(transaction.account_number_encrypted)
    assert digits not in words + files["csv"].decode()


def materializations(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [
        event.step_materialization_data.materialization for event in result.all_events if event.is_step_materialization
    ]


def test_a_ledger_adds_up_and_starts_no_formula(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    requests = {one: ask(company, "case_ledger", one, {"case_id": case.case_id}) for one in ("csv", "xlsx", "pdf")}
    run()
    files = {
        one: next(iter(mailbox.control.letters(address(company, number))[0].attachments.values()))
        for one, number in requests.items()
    }
    lines = read_csv(files["csv"])
    assert lines[0] == ["Posted", "Kind", "Memo", "Transaction", "Amount", "Balance"]
    assert [line[4:] for line in lines[1:]] == [["1000.00", "1000.00"], ["-12.50", "987.50"]]
    assert lines[2][2] == f"'{EVIL}"
    sheet = openpyxl.load_workbook(io.BytesIO(files["xlsx"])).worksheets[0]
    last = list(sheet[sheet.max_row])
    assert (last[2].value, last[2].data_type) == (EVIL, "s")
    assert (last[5].value, last[5].number_format) == (987.5, '"$"#,##0.00;[Red]-"$"#,##0.00')
    assert last[0].is_date
    totals = {line[0].value: line[1].value for line in sheet.iter_rows(max_row=8)}
    assert totals["Balance"] == 987.5
    page = PdfReader(io.BytesIO(files["pdf"])).pages[0]
    assert "-$12.50" in page.extract_text()
    assert len(page.images) == 1


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
    build = building.build_report
    nested: list[Any] = []

    def slow(*arguments: Any, **options: Any) -> building.BuiltReport:
        built = build(*arguments, **options)
        if not nested:
            nested.append(None)
            age(company, number, 11)
            nested[0] = run_and_tell()["made"]
        return built

    monkeypatch.setattr(generating, "build_report", slow)
    late = run_and_tell()
    assert nested == [[number]]
    assert (late["made"], late["failed"]) == ([], [])
    assert row(company, number).status == 3
    assert len(mailbox.control.letters()) == len(outside.storage.keys("reports/")) == 1


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "horoscope"}, "There is no report called 'horoscope': choose one of case_ledger"),
    "no case": ({"kind": "case_ledger"}, "needs the number of a case"),
    "another case": (
        {"kind": "case_ledger", "params": {"case_id": 999_999}},
        "There is no case with the number 999999",
    ),
    "case in words": ({"kind": "case_ledger", "params": {"case_id": "first"}}, "needs the number of a case"),
    "huge case": ({"kind": "case_ledger", "params": {"case_id": 10**30}}, "needs the number of a case"),
    "a list": ({"kind": "case_ledger", "params": [1]}, "parameters of the report can't be read"),
    "no day": ({"kind": "disbursements", "params": {"from": "yesterday"}}, "'yesterday', which is no day"),
    "day in no month": ({"kind": "disbursements", "params": {"to": "2026-02-30"}}, "'2026-02-30', which is no day"),
    "reversed": (
        {"kind": "huntington_transfers", "params": {"from": "2026-02-02", "to": "2026-02-01"}},
        "would start on 2026-02-02 and end before that",
    ),
    "unknown status": ({"kind": "disbursements", "params": {"status": "lost"}}, "No status is called 'lost'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_fails_alone_with_a_sentence_and_its_requester_is_told(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, bad: str
) -> None:
    columns, sentence = BAD[bad]
    number = ask(company, **columns)
    good = ask(company, "account_balances")
    result = run()
    assert result.success
    assert told(result)["made"] == [good]
    failed = row(company, number)
    assert failed.status == 4
    assert sentence in str(failed.error)
    (letter,) = mailbox.control.letters(address(company, number))
    assert " ".join(str(failed.error).split()) in " ".join(letter.text.split())
    with company.sessions() as session:
        assert session.scalars(select(ReportClaim)).all() == []


@pytest.mark.parametrize(
    ("user", "sentence"), [({"email": ""}, "no email address"), ({"is_active": False}, "not active")]
)
def test_a_requester_who_can_t_be_written_to_gets_no_letter_and_the_rest_go_on(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, user: dict[str, Any], sentence: str
) -> None:
    number, good = ask(company, "account_balances", **user), ask(company, "account_balances")
    assert run_and_tell()["made"] == [good]
    assert row(company, number).status == 4
    assert sentence in str(row(company, number).error)
    assert len(mailbox.control.letters()) == 1


def test_a_bucket_that_is_not_there_fails_the_request_with_a_sentence(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORTS_BUCKET", "no-such-bucket")
    environment.cache_clear()
    number = ask(company, "account_balances")
    assert run().success
    assert "There is no S3 bucket no-such-bucket" in str(row(company, number).error)
    assert len(mailbox.control.letters(address(company, number))) == 1


def test_storage_that_is_away_puts_the_request_back_and_fails_it_after_three_tries(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    number = ask(company, "account_balances")
    for tries in (1, 2, 3):
        result = run_and_tell()
        assert result["failed" if tries == 3 else "put back"] == [number]
        assert run_and_tell()["put back"] == []
        with company.sessions.begin() as session:
            session.execute(update(ReportClaim).values(not_before=datetime.now(UTC)))
    assert row(company, number).status == 4
    assert "It was tried 3 times." in str(row(company, number).error)


def test_a_large_report_is_a_link_that_anybody_can_follow(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generating, "LARGEST_ATTACHMENT", 10)
    number = ask(company, "account_balances")
    run()
    (letter,) = mailbox.control.letters(address(company, number))
    assert letter.attachments == {}
    with company.sessions() as session:
        variables = session.scalars(select(Notification.variables)).one()
    assert "604800" in variables["link"]
    answer = httpx.get(variables["link"], timeout=60)
    assert read_csv(answer.content)[0][0] == "Case"
    assert f"account-balances-{datetime.now().year}" in answer.headers["content-disposition"]  # noqa: DTZ005


def test_a_pdf_of_too_many_rows_says_what_to_ask_for(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_file, "MOST_ROWS", 1)
    number = ask(company, "case_ledger", "pdf", {"case_id": case.case_id})
    run()
    assert "too much for a PDF. Ask for it as xlsx or csv" in str(row(company, number).error)


@pytest.mark.parametrize("format_name", ["csv", "xlsx", "pdf"])
def test_a_report_of_nothing_is_whole(company: Company, mailbox: MailboxProcess, format_name: str) -> None:
    number = ask(company, "huntington_transfers", format_name)
    run()
    assert row(company, number).status == 3


def test_a_missing_bucket_variable_stops_the_job_by_name_only_where_a_report_waits(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPORTS_BUCKET")
    environment.cache_clear()
    assert run().success
    number = ask(company, "account_balances")
    result = run()
    assert not result.success
    (failure, *_) = [event for event in result.all_events if event.is_step_failure]
    assert "REPORTS_BUCKET is not set" in str(failure.step_failure_data.user_failure_data)
    assert row(company, number).status == 1


def test_the_schedule_launches_only_where_something_waits(company: Company, case: BuiltCase) -> None:
    def tick() -> Any:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime.now(UTC),
            resources={"database": DatabaseResource()},
            repository_def=definitions.get_repository_def(),
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
