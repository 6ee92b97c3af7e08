"""The report files: every kind in every format, attached or as a link, and as an asset."""

import csv
import hashlib
import io
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from unicodedata import normalize
from zoneinfo import ZoneInfo

import dagster as dg
import httpx
import openpyxl
import pytest
from pypdf import PdfReader
from sqlalchemy import func, text, update

from seedtrust_ops.domain.reports import generator, pdf_writer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops.tables import DisbursementRequest, LedgerEntry, User
from seedtrust_ops_tests.jobs.report_requests import job_result, request_report, request_row, requester_email, run
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.support.job_environment import FORMULA_TEXT

pytestmark = pytest.mark.usefixtures("full_environment")


ZONE = ZoneInfo("America/New_York")


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))


PARAMS: dict[str, Callable[[BuiltCase], dict[str, Any]]] = {
    "case_ledger": lambda case: {"case_id": case.case_id},
    "disbursements": lambda _: {"from": "2020-01-01", "to": "2099-12-31", "status": "approved"},
    "account_balances": lambda _: {},
    "huntington_transfers": lambda _: {"from": "2020-01-01", "to": "2099-12-31"},
}


@pytest.mark.parametrize("kind", PARAMS)
def test_every_kind_in_every_format_is_emailed_and_materialized(
    company: Company, case: BuiltCase, external_services: ExternalServices, mailbox: MailboxProcess, kind: str
) -> None:
    batch_id = company.batch([700])
    (transaction,) = company.transactions(batch_id)
    requests = {
        file_format: request_report(company, kind, file_format, PARAMS[kind](case))
        for file_format in ("csv", "xlsx", "pdf")
    }
    result = run()
    assert result.success
    assert job_result(result)["generated"] == list(requests.values())
    made = {materialization.metadata["Request"].value: materialization for materialization in materializations(result)}
    files = {}
    for format_name, request_id in requests.items():
        request = request_row(company, request_id)
        assert (request.status, request.error) == (3, None)
        assert request.finished_at is not None
        (email,) = mailbox.control.emails(requester_email(company, request_id))
        ((name, content),) = email.attachments.items()
        assert name.endswith(f".{format_name}")
        shown = {name: value.value for name, value in made[request_id].metadata.items()}
        assert made[request_id].asset_key == dg.AssetKey(["reports", kind])
        assert shown["SHA-256"] == hashlib.sha256(content).hexdigest()
        assert (shown["Format"], shown["File size (bytes)"]) == (format_name, len(content))
        assert (
            external_services.storage.read(shown["Location"].removeprefix(f"s3://{external_services.storage.bucket}/"))
            == content
        )
        files[format_name] = content
        rows = shown["Rows"]
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
    text = " ".join(page.extract_text() for page in pages)
    assert f"Page 1 of {len(pages)}" in text
    assert "SeedTrust: " in text
    digits = company.cipher.decrypt(transaction.account_number_encrypted)
    assert digits not in text + files["csv"].decode()


def materializations(result: dg.ExecuteInProcessResult) -> list[dg.AssetMaterialization]:
    return [
        event.step_materialization_data.materialization for event in result.all_events if event.is_step_materialization
    ]


def test_case_ledger_balances_and_starts_no_formula(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    requests = {
        file_format: request_report(company, "case_ledger", file_format, {"case_id": case.case_id})
        for file_format in ("csv", "xlsx", "pdf")
    }
    run()
    files = {
        format_name: next(iter(mailbox.control.emails(requester_email(company, request_id))[0].attachments.values()))
        for format_name, request_id in requests.items()
    }
    lines = read_csv(files["csv"])
    assert lines[0] == ["Posted", "Kind", "Memo", "Transaction", "Amount", "Balance"]
    assert [line[4:] for line in lines[1:]] == [["1000.00", "1000.00"], ["-12.50", "987.50"]]
    assert lines[2][2] == f"'{FORMULA_TEXT}"
    sheet = openpyxl.load_workbook(io.BytesIO(files["xlsx"])).worksheets[0]
    last = list(sheet[sheet.max_row])
    assert (last[2].value, last[2].data_type) == (FORMULA_TEXT, "s")
    assert (last[5].value, last[5].number_format) == (987.5, '"$"#,##0.00;[Red]-"$"#,##0.00')
    assert last[0].is_date
    totals = {line[0].value: line[1].value for line in sheet.iter_rows(max_row=8)}
    assert totals["Balance"] == 987.5
    page = PdfReader(io.BytesIO(files["pdf"])).pages[0]
    assert "-$12.50" in page.extract_text()
    assert len(page.images) == 1


def test_large_report_is_sent_as_a_presigned_link(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "MAX_ATTACHMENT_BYTES", 10)
    request_id = request_report(company, "account_balances")
    run()
    (email,) = mailbox.control.emails(requester_email(company, request_id))
    assert email.attachments == {}
    (link,) = [line for line in email.text.splitlines() if line.startswith("http")]
    assert "604800" in link
    assert f"works until {datetime.now(ZONE) + timedelta(days=7):%B}" in " ".join(email.text.split())
    response = httpx.get(link, timeout=60)
    assert read_csv(response.content)[0][0] == "Case"
    assert f"account-balances-{datetime.now(ZONE).year}" in response.headers["content-disposition"]


def test_long_texts_are_cut_and_names_are_whole_in_every_format(
    company: Company, case: BuiltCase, external_services: ExternalServices, mailbox: MailboxProcess
) -> None:
    name = "Łucja José-Ñandú 李 Wolfeschlegelsteinhausenbergerdorff " * 4
    with company.sessions.begin() as session:
        session.execute(update(User).where(User.id == case.payee_id).values(full_name=name.strip()))
        session.execute(update(DisbursementRequest).values(description=func.repeat("long text ", 2_000_000)))
    requests = {
        file_format: request_report(company, "disbursements", file_format) for file_format in ("csv", "xlsx", "pdf")
    }
    assert job_result(run())["generated"] == list(requests.values())
    files = {
        format_name: next(iter(mailbox.control.emails(requester_email(company, request_id))[0].attachments.values()))
        for format_name, request_id in requests.items()
    }
    row = read_csv(files["csv"])[1]
    assert (row[2], len(row[4]), row[4][-3:]) == (name.strip(), 5_000, "xt…")
    sheet = openpyxl.load_workbook(io.BytesIO(files["xlsx"])).worksheets[0]
    assert [cell.value for cell in sheet[sheet.max_row]][2:5] == [name.strip(), row[3], row[4]]
    printed = "".join(page.extract_text() for page in PdfReader(io.BytesIO(files["pdf"])).pages)
    assert "…" in printed
    assert "".join(name.split()) in "".join(printed.split())


FORMULA_CELLS = [
    "=1+1",
    "\N{FULLWIDTH EQUALS SIGN}1+1",
    "\N{FULLWIDTH COMMERCIAL AT}SUM(1)",
    "\N{FULLWIDTH HYPHEN-MINUS}1",
    "\N{SMALL PLUS SIGN}1",
    "\N{MINUS SIGN}1",
    " =1+1",
    "\u3000\N{FULLWIDTH EQUALS SIGN}1+1",
    "\u200b=1+1",
    "\ufeff+1",
    "\t=1+1",
    "\r@SUM(1)",
    "\n-1",
    "Refund;=1+1",
    "Refund;;\t \N{FULLWIDTH PLUS SIGN}1",
    "Refund\n=1+1",
]


def test_no_text_starts_a_formula_in_a_spreadsheet(company: Company, case: BuiltCase, mailbox: MailboxProcess) -> None:
    """Also in programs that trim cells, fold full-width characters, or split lines at semicolons or tabs."""
    with company.sessions.begin() as session:
        for memo in FORMULA_CELLS:
            session.add(LedgerEntry(account_id=case.account_id, amount_cents=1, kind="fee", memo=memo))
    requests = {
        file_format: request_report(company, "case_ledger", file_format, {"case_id": case.case_id})
        for file_format in ("csv", "xlsx")
    }
    run()
    files = {
        format_name: next(iter(mailbox.control.emails(requester_email(company, request_id))[0].attachments.values()))
        for format_name, request_id in requests.items()
    }
    cells = [cell for line in read_csv(files["csv"]) for cell in line]
    cells += re.split(r"[;\t\r\n]", files["csv"].decode("utf-8-sig"))
    for cell in cells:
        trimmed = re.sub(r"[\s\u200b\ufeff]", "", normalize("NFKC", cell.replace("\N{MINUS SIGN}", "-")))
        assert re.fullmatch(r"-?\d+\.\d\d", trimmed) or not trimmed.startswith(("=", "+", "-", "@")), cell
    sheet = openpyxl.load_workbook(io.BytesIO(files["xlsx"])).worksheets[0]
    memos = [row[2] for row in sheet.iter_rows(min_row=sheet.max_row - len(FORMULA_CELLS) + 1)]
    assert {(cell.data_type, cell.number_format) for cell in memos} == {("s", "@")}


@pytest.mark.parametrize(
    ("posted_at", "as_text"),
    [
        ("infinity", "infinity"),
        ("-infinity", "'-infinity"),
        ("20260-03-03 12:00-05", "20260-03-03 12:00:00"),
        ("1026-03-03 12:00-05", "1026-03-03"),
    ],
)
def test_times_that_python_or_excel_lacks_are_shown_as_text(
    company: Company, case: BuiltCase, mailbox: MailboxProcess, posted_at: str, as_text: str
) -> None:
    with company.sessions.begin() as session:
        session.execute(text("update ledger_entries set posted_at = :at where kind = 'fee'"), {"at": posted_at})
    requests = [
        request_report(company, "case_ledger", format_name, {"case_id": case.case_id})
        for format_name in ("csv", "xlsx", "pdf")
    ]
    assert job_result(run())["generated"] == requests
    ((_, content),) = mailbox.control.emails(requester_email(company, requests[0]))[0].attachments.items()
    shown = {line[0] for line in read_csv(content)}
    assert [one for one in shown if one.startswith(as_text)]


def test_pdf_with_too_many_pages_says_what_to_request_instead(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_writer, "MAX_PAGES", 1)
    with company.sessions.begin() as session:
        session.execute(update(LedgerEntry).values(memo=func.repeat("long text ", 500)))
    request_id = request_report(company, "case_ledger", "pdf", {"case_id": case.case_id})
    run()
    assert "more than 1 pages, the limit for a PDF. Request XLSX or CSV" in str(request_row(company, request_id).error)


def test_pdf_with_too_many_rows_says_what_to_request_instead(
    company: Company, case: BuiltCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_writer, "MAX_ROWS", 1)
    request_id = request_report(company, "case_ledger", "pdf", {"case_id": case.case_id})
    run()
    assert "the limit for a PDF. Request XLSX or CSV" in str(request_row(company, request_id).error)


@pytest.mark.parametrize("format_name", ["csv", "xlsx", "pdf"])
def test_empty_report_is_valid(company: Company, mailbox: MailboxProcess, format_name: str) -> None:
    request_id = request_report(company, "huntington_transfers", format_name)
    run()
    assert request_row(company, request_id).status == 3
