"""User input stays plain text in SQL, emails, spreadsheets, PDFs, Markdown and terminals.

Every text column contains each injection payload, every job runs, and all output is parsed as its reader would. Every
text column contains a very long text too, and every job and automation runs without loading it.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import openpyxl
import psycopg
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from psycopg.adapt import Loader
from pypdf import PdfReader
from sqlalchemy import Engine, inspect, text
from sqlalchemy.event import listen, remove
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.formatting import MAX_TEXT_CHARS
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.control_client import ReceivedEmail
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.stack import ExternalServices
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import OpsTable, PlatformTable, ReportRequest
from seedtrust_ops.tables.user_text import UserText
from seedtrust_ops_tests.support.all_jobs import (
    LONG_TIMEOUTS,
    create_work_for_every_job,
    evaluate_every_automation,
    run_every_job,
    unexpected_failures,
)
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.injection_payloads import RENDERED_SUM, InsertedPayloads, insert_payloads, payloads

ALLOWED_HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    *("Auto-Submitted", "X-Auto-Response-Suppress"),
}
ALLOWED_TAGS = {
    *("html", "head", "meta", "title", "body", "div", "table", "tr", "td", "th", "p", "strong", "span", "br"),
}
NUMBER = re.compile(r"-?\d+(\.\d+)?")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class JobOutputs:
    """Everything that the jobs produced."""

    inserted: InsertedPayloads
    results: dict[str, dg.ExecuteInProcessResult]
    emails: list[ReceivedEmail]
    files: dict[str, bytes]
    log_output: str


@pytest.fixture
def outputs(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    set_variables: SetVariables,
    company: Company,
    instance: dg.DagsterInstance,
    bank: BankProcess,
    mailbox: MailboxProcess,
    external_services: ExternalServices,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> JobOutputs:
    set_variables(ALERT_EMAILS="ops@office.test", **LONG_TIMEOUTS)
    texts = payloads(tmp_path / "canary")
    inserted = insert_payloads(company, texts)
    create_work_for_every_job(company)
    with company.sessions.begin() as session:
        for payload in texts:
            open_alert(session, "error_spike", payload, Severity.CRITICAL, payload)
    results = run_every_job(instance, bank, inserted.batch_id, company.sessions)
    evaluate_every_automation(instance)
    files = {key: external_services.storage.read(key) for key in external_services.storage.keys()}  # noqa: SIM118  it is not a dict
    captured = capfd.readouterr()
    return JobOutputs(inserted, results, mailbox.control.emails(), files, captured.out + captured.err)


OWN_LINK = re.compile(r"/runs\?q%5B0%5D=tag:seedtrust/batch_id=\d+|/runs/[\w%~.-]+|/assets/reports/[a-z_]+", re.ASCII)
"""The only links that tables may contain: to a run, a batch's runs, or a report's asset."""


@pytest.mark.timeout(600)  # on a busy machine; it takes about 25 s on a quiet one
def test_injection_payloads_stay_text_in_every_output(outputs: JobOutputs, tmp_path: Path) -> None:
    assert unexpected_failures(outputs.results) == {}
    assert not (tmp_path / "canary").exists()
    _assert_tables_exist(outputs.inserted)
    _assert_emails_are_inert(outputs.emails)
    _assert_spreadsheets_have_no_formulas(outputs.files)
    _assert_pdfs_have_no_actions(outputs.files)
    _assert_markdown_is_inert(outputs.results)
    _assert_log_has_no_control_chars(outputs.log_output)
    assert all(re.fullmatch(r"(reports|balances)/[A-Za-z0-9_./-]+", key) and ".." not in key for key in outputs.files)
    _assert_command_line_shows_plain_text(outputs.inserted, tmp_path)


def test_every_text_column_gets_payloads_or_is_constrained(
    company: Company,
) -> None:
    """No new column can be forgotten: `insert_payloads` fails if it has no row for a table."""
    inserted = insert_payloads(company, ["'; drop table ops.alerts; --"])
    assert inserted.constrained <= {
        *("users.role", "cases.status", "case_parties.role", "disbursement_requests.status"),
        *("huntington_batches.status", "huntington_transactions.method", "huntington_transactions.account_type"),
        *("huntington_transactions.status", "ledger_entries.kind", "report_requests.format"),
        *("job_runs.status", "job_runs.resolution", "errors.severity"),
    }
    assert {"users.full_name", "cases.case_number", "ledger_entries.memo"} <= inserted.columns
    columns = {
        f"{table.name}.{column.name}": column for table in PlatformTable.metadata.tables.values() for column in table.c
    }
    assert {name for name in inserted.columns if not isinstance(columns[name].type, UserText)} == set()


LONG_TEXT = "x" * 150_000
"""Much longer than any limit, but compressed it still fits into the indexes of unique columns."""
LONGEST_LOADED = 33_000
"""A little more than a cell of a spreadsheet holds; all other limits are lower."""
LONGEST_LOADED_JSON = 100_000


@pytest.fixture
def loaded_sizes() -> Iterator[dict[str, int]]:
    """The bytes of the longest text and JSON value that new connections have loaded from the database, by type."""
    longest = {"text": 0, "jsonb": 0}

    class TextLoader(Loader):
        def load(self, data: Any) -> Any:
            longest["text"] = max(longest["text"], len(data))
            return bytes(data).decode()

    class JsonLoader(Loader):
        def load(self, data: Any) -> Any:
            longest["jsonb"] = max(longest["jsonb"], len(data))
            return json.loads(bytes(data))

    def register(connection: Any, _record: object) -> None:
        if isinstance(connection, psycopg.Connection):
            connection.adapters.register_loader("text", TextLoader)
            connection.adapters.register_loader("jsonb", JsonLoader)

    listen(Engine, "connect", register)
    yield longest
    remove(Engine, "connect", register)


@pytest.mark.timeout(600)  # on a busy machine
def test_long_texts_stay_in_the_database_whatever_runs(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    loaded_sizes: dict[str, int],
    set_variables: SetVariables,
    company: Company,
    instance: dg.DagsterInstance,
    bank: BankProcess,
    mailbox: MailboxProcess,
) -> None:
    set_variables(ALERT_EMAILS="ops@office.test", **LONG_TIMEOUTS)
    inserted = insert_payloads(company, [LONG_TEXT])
    inserted.factory._add(
        ReportRequest(user_id=inserted.case.specialist_id, kind="case_ledger", params={"case_id": 40 * LONG_TEXT})
    )
    batch_id = create_work_for_every_job(company)

    for one in (inserted.batch_id, batch_id):
        assert unexpected_failures(run_every_job(instance, bank, one, company.sessions)) == {}
    evaluate_every_automation(instance)

    assert loaded_sizes["text"] <= LONGEST_LOADED
    assert loaded_sizes["jsonb"] <= LONGEST_LOADED_JSON
    emails = mailbox.control.emails()
    assert max(len(email.text) for email in emails) < 2 * MAX_TEXT_CHARS
    assert any("xxx…" in email.text for email in emails)
    assert set(company.statuses(batch_id)) == {"completed", "failed", "returned"}


def _assert_tables_exist(inserted: InsertedPayloads) -> None:
    engine = inserted.company.sessions.kw["bind"]
    for tables in (PlatformTable.metadata.sorted_tables, OpsTable.metadata.sorted_tables):
        assert {table.name for table in tables} <= set(inspect(engine).get_table_names(schema=tables[0].schema))
    with inserted.company.sessions() as session:
        assert session.scalar(text("select count(*) from ops.alerts")) > 0


class _HtmlTags(HTMLParser):
    """Collects the tags of an HTML text, and the attributes that fetch or execute something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.active += [
            attribute
            for attribute in attrs
            if attribute[0].startswith("on") or attribute[0] in ("src", "href", "action")
        ]


def _assert_emails_are_inert(emails: list[ReceivedEmail]) -> None:
    assert {email.recipient for email in emails} & {"victim@evil.example"} == set()
    for email in emails:
        message = email.message
        assert set(message.keys()) <= ALLOWED_HEADERS
        assert len(message.keys()) == len(set(message.keys()))
        assert not message.defects
        types = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
        assert types[:2] == ["text/plain", "text/html"]
        assert len(types) <= 3
        assert RENDERED_SUM not in email.subject + email.text + email.html
        assert _control_chars(email.text) == set()
        assert not re.search(r"^(Bcc|Subject): ", email.text, re.MULTILINE)
        parsed = _HtmlTags(email.html)
        assert parsed.tags <= ALLOWED_TAGS
        assert parsed.active == []
    combined = "".join(email.text + email.html for email in emails)
    assert "{{ 7*191 }}" in combined
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in combined
    assert any("drop table" in email.subject for email in emails)


def _assert_spreadsheets_have_no_formulas(files: dict[str, bytes]) -> None:
    tables = {key: content for key, content in files.items() if key.endswith(".csv")}
    formulas_seen = 0
    for content in tables.values():
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for row in rows:
            assert len(row) == len(header)
            for cell in row:
                assert NUMBER.fullmatch(cell) or not cell.startswith(FORMULA_STARTS), cell
                formulas_seen += "HYPERLINK(" in cell
    assert formulas_seen > 0
    workbooks = [content for key, content in files.items() if key.endswith(".xlsx")]
    assert len(workbooks) > 4
    for content in workbooks:
        book = openpyxl.load_workbook(io.BytesIO(content))
        assert book.vba_archive is None
        for sheet in book.worksheets:
            for cells in sheet.iter_rows():
                for xlsx_cell in cells:
                    assert xlsx_cell.data_type != "f", xlsx_cell.value
                    assert xlsx_cell.hyperlink is None


def _assert_pdfs_have_no_actions(files: dict[str, bytes]) -> None:
    readers = [PdfReader(io.BytesIO(content)) for key, content in files.items() if key.endswith(".pdf")]
    assert len(readers) > 4
    for reader in readers:
        root: Any = reader.trailer["/Root"]
        assert not {"/AA", "/AcroForm", "/Names"} & set(root)
        # A destination on a page, not an action.
        assert isinstance(root.get("/OpenAction", []), list)
        for page in reader.pages:
            assert not {"/Annots", "/AA"} & set(page)


def _assert_markdown_is_inert(results: dict[str, dg.ExecuteInProcessResult]) -> None:
    documents = list(_markdown_of(results))
    assert any("drop table" in document for document in documents)
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    for markdown in documents:
        for token in _flat(parser.parse(markdown)):
            assert token.type not in ("html_block", "html_inline", "heading_open", "code_inline"), markdown
            assert token.type != "link_open" or OWN_LINK.fullmatch(str(token.attrs["href"])), markdown
            assert token.type != "image" or str(token.attrs["src"]).startswith("data:image/png;base64,")


def _markdown_of(results: dict[str, dg.ExecuteInProcessResult]) -> Iterator[str]:
    for result in results.values():
        for event in result.all_events:
            metadata = getattr(getattr(event, "event_specific_data", None), "metadata", None) or {}
            if event.is_step_materialization:
                metadata = event.step_materialization_data.materialization.metadata
            for value in metadata.values():
                if isinstance(value, dg.MarkdownMetadataValue) and value.value is not None:
                    yield value.value


def _flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _flat(token.children or [])


def _control_chars(text_output: str) -> set[str]:
    """Return the characters that control a terminal or change the text direction."""
    return {
        character
        for character in text_output
        if unicodedata.category(character) in ("Cc", "Cf") and character not in "\n\t"
    }


def _assert_log_has_no_control_chars(log_output: str) -> None:
    assert _control_chars(log_output) == set()
    assert not re.search(r"^(Bcc|Subject): ", log_output, re.MULTILINE)
    assert "drop table" in log_output


def _assert_command_line_shows_plain_text(inserted: InsertedPayloads, folder: Path) -> None:
    with inserted.company.sessions.begin() as session:
        halt(session, "[red]reason[/] \x1b[31m\nTransfers are sent again.", set_by="[b]somebody[/b]")
    explained = [("rules", "explain", str(request_id)) for request_id in inserted.requests[-14:]]
    for command in [("status",), ("status", "--json"), ("alerts",), ("alerts", "--json"), *explained]:
        result = CliRunner().invoke(app, list(command), color=True, env={"COLUMNS": "3000"})
        assert result.exit_code == 0, (command, result.output[-500:], result.exception)
        assert _control_chars(result.output) == set(), command
        if command[0] == "rules":
            assert "[red]red[/red]" in result.output
            assert all(re.match(r"(Request|Rule|No rule) ?\d*", line) for line in result.output.splitlines())
        else:
            assert "[link=https://evil.example]" in result.output
