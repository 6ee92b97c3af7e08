"""Whatever people type into the platform stays text: in SQL, letters, spreadsheets, PDFs, Markdown and terminals.

Every text column that there is holds one of each kind of hostile text; every job runs; everything that comes out is
read as its reader would read it.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import openpyxl
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pypdf import PdfReader
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld
from seedtrust_ops.sandbox.mailbox.control_client import KeptLetter
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import OpsTable, PlatformTable
from seedtrust_ops_tests.support.every_job import (
    PATIENCE,
    failures,
    run_every_job,
    tick_every_automation,
    work_for_every_job,
)
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.injection_payloads import SUM, Planted, payloads, plant
from seedtrust_ops_tests.support.job_environment import Change, change, jobs_environment, outside, outside_servers

__all__ = ["change", "jobs_environment", "outside", "outside_servers"]

HEADERS = {
    *("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    *("Auto-Submitted", "X-Auto-Response-Suppress"),
}
TAGS = {
    *("html", "head", "meta", "title", "body", "div", "table", "tr", "td", "th", "p", "strong", "span", "br"),
}
A_NUMBER = re.compile(r"-?\d+(\.\d+)?")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class World:
    """What came of it all."""

    planted: Planted
    results: dict[str, dg.ExecuteInProcessResult]
    letters: list[KeptLetter]
    files: dict[str, bytes]
    logged: str


@pytest.fixture
def world(
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    change: Change,
    company: Company,
    instance: dg.DagsterInstance,
    bank: BankProcess,
    mailbox: MailboxProcess,
    outside: OutsideWorld,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> World:
    change(ALERT_EMAILS="ops@office.test", **PATIENCE)
    texts = payloads(tmp_path / "canary")
    planted = plant(company, texts)
    work_for_every_job(company)
    with company.sessions.begin() as session:
        for hostile in texts:
            open_alert(session, "error_spike", hostile, Severity.CRITICAL, hostile)
    results = run_every_job(instance, bank, planted.batch_id, company.sessions)
    tick_every_automation(instance)
    files = {key: outside.storage.read(key) for key in outside.storage.keys()}  # noqa: SIM118  it is no dict
    captured = capfd.readouterr()
    return World(planted, results, mailbox.control.letters(), files, captured.out + captured.err)


OWN_PAGE = re.compile(r"/runs\?q%5B0%5D=tag:seedtrust/batch_id=\d+|/runs/[\w%~.-]+|/assets/reports/[a-z_]+", re.ASCII)
"""Where tables may lead: to a run, a batch's runs, or a report's asset, and to nothing that anybody typed."""


@pytest.mark.timeout(600)  # on a busy machine; it takes about 25 s on a quiet one
def test_nothing_that_anybody_typed_breaks_out_anywhere(world: World, tmp_path: Path) -> None:
    assert failures(world.results) == {}
    assert not (tmp_path / "canary").exists()
    _nothing_is_gone(world.planted)
    _letters_are_letters(world.letters)
    _spreadsheets_calculate_nothing(world.files)
    _pdfs_do_nothing(world.files)
    _markdown_shows_and_leads_nowhere_else(world.results)
    _terminals_are_obeyed_by_nobody(world.logged)
    assert all(re.fullmatch(r"(reports|balances)/[A-Za-z0-9_./-]+", key) and ".." not in key for key in world.files)
    _command_line_shows_it_as_it_stands(world.planted, tmp_path)


def test_every_text_column_is_planted_or_held_to_its_words_by_the_platform(
    company: Company,
) -> None:
    """So that a new column can't be forgotten: `plant` fails where it has no row for a table."""
    planted = plant(company, ["'; drop table ops.alerts; --"])
    assert planted.constrained <= {
        *("users.role", "cases.status", "case_parties.role", "disbursement_requests.status"),
        *("huntington_batches.status", "huntington_transactions.method", "huntington_transactions.account_type"),
        *("huntington_transactions.status", "ledger_entries.kind", "report_requests.format"),
        *("job_runs.status", "job_runs.resolution", "errors.severity"),
    }
    assert {"users.full_name", "cases.case_number", "ledger_entries.memo"} <= planted.columns


def _nothing_is_gone(planted: Planted) -> None:
    engine = planted.company.sessions.kw["bind"]
    for tables in (PlatformTable.metadata.sorted_tables, OpsTable.metadata.sorted_tables):
        assert {table.name for table in tables} <= set(inspect(engine).get_table_names(schema=tables[0].schema))
    with planted.company.sessions() as session:
        assert session.scalar(text("select count(*) from ops.alerts")) > 0


class _Tags(HTMLParser):
    """The tags of an HTML text, and what their attributes would fetch or do."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.active += [one for one in attrs if one[0].startswith("on") or one[0] in ("src", "href", "action")]


def _letters_are_letters(letters: list[KeptLetter]) -> None:
    assert {letter.recipient for letter in letters} & {"victim@evil.example"} == set()
    for letter in letters:
        message = letter.message
        assert set(message.keys()) <= HEADERS
        assert len(message.keys()) == len(set(message.keys()))
        assert not message.defects
        types = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
        assert types[:2] == ["text/plain", "text/html"]
        assert len(types) <= 3
        assert SUM not in letter.subject + letter.text + letter.html
        assert _controls(letter.text) == set()
        assert not re.search(r"^(Bcc|Subject): ", letter.text, re.MULTILINE)
        read = _Tags(letter.html)
        assert read.tags <= TAGS
        assert read.active == []
    together = "".join(letter.text + letter.html for letter in letters)
    assert "{{ 7*191 }}" in together
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in together
    assert any("drop table" in letter.subject for letter in letters)


def _spreadsheets_calculate_nothing(files: dict[str, bytes]) -> None:
    tables = {key: content for key, content in files.items() if key.endswith(".csv")}
    formulas_seen = 0
    for content in tables.values():
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for row in rows:
            assert len(row) == len(header)
            for cell in row:
                assert A_NUMBER.fullmatch(cell) or not cell.startswith(FORMULA_STARTS), cell
                formulas_seen += "HYPERLINK(" in cell
    assert formulas_seen > 0
    workbooks = [content for key, content in files.items() if key.endswith(".xlsx")]
    assert len(workbooks) > 4
    for content in workbooks:
        book = openpyxl.load_workbook(io.BytesIO(content))
        assert book.vba_archive is None
        for sheet in book.worksheets:
            for cells in sheet.iter_rows():
                for one in cells:
                    assert one.data_type != "f", one.value
                    assert one.hyperlink is None


def _pdfs_do_nothing(files: dict[str, bytes]) -> None:
    readers = [PdfReader(io.BytesIO(content)) for key, content in files.items() if key.endswith(".pdf")]
    assert len(readers) > 4
    for reader in readers:
        root: Any = reader.trailer["/Root"]
        assert not {"/AA", "/AcroForm", "/Names"} & set(root)
        # A place on a page to open at, and no action.
        assert isinstance(root.get("/OpenAction", []), list)
        for page in reader.pages:
            assert not {"/Annots", "/AA"} & set(page)


def _markdown_shows_and_leads_nowhere_else(results: dict[str, dg.ExecuteInProcessResult]) -> None:
    shown = list(_markdown_of(results))
    assert any("drop table" in one for one in shown)
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    for markdown in shown:
        for token in _flat(reader.parse(markdown)):
            assert token.type not in ("html_block", "html_inline", "heading_open", "code_inline"), markdown
            assert token.type != "link_open" or OWN_PAGE.fullmatch(str(token.attrs["href"])), markdown
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


def _controls(shown: str) -> set[str]:
    """The characters in it that a terminal obeys, or that turn the direction of writing."""
    return {one for one in shown if unicodedata.category(one) in ("Cc", "Cf") and one not in "\n\t"}


def _terminals_are_obeyed_by_nobody(logged: str) -> None:
    assert _controls(logged) == set()
    assert not re.search(r"^(Bcc|Subject): ", logged, re.MULTILINE)
    assert "drop table" in logged


def _command_line_shows_it_as_it_stands(planted: Planted, folder: Path) -> None:
    with planted.company.sessions.begin() as session:
        halt(session, "[red]because[/] \x1b[31m\nTransfers are sent again.", set_by="[b]somebody[/b]")
    explained = [("rules", "explain", str(one)) for one in planted.requests[-14:]]
    for command in [("status",), ("status", "--json"), ("alerts",), ("alerts", "--json"), *explained]:
        result = CliRunner().invoke(app, list(command), color=True, env={"COLUMNS": "3000"})
        assert result.exit_code == 0, (command, result.output[-500:], result.exception)
        assert _controls(result.output) == set(), command
        if command[0] == "rules":
            assert "[red]red[/red]" in result.output
            assert all(re.match(r"(Request|Rule|No rule) ?\d*", line) for line in result.output.splitlines())
        else:
            assert "[link=https://evil.example]" in result.output
