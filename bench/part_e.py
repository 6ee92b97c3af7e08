"""(e) Work over many rows against the bare SQL, and against a loop over rows."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from bench import row_by_row
from bench.figures import Figure, Part, Promise, say
from bench.ground import database_server
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.balances.chart import draw_histogram
from seedtrust_ops.domain.balances.snapshot import take_balances
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reports.builder import build_report
from seedtrust_ops.domain.reports.report_kinds import prepare_report
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops_tests.bench.approvals import BARE_SQL, FILL, REQUESTS_A_CASE
from seedtrust_ops_tests.bench.million_row_reports import BARE, COMPANY
from seedtrust_ops_tests.support.databases import create_platform, own_database, plain

ROUNDS = 5
LOOPED_ROWS = 1_000
"""Row by row as cron had it, more rows take minutes a time."""
LINEAR = 1.1
"""A slope up to this counts as linear: the exponent of rows in time, between the two largest sizes."""
BARE_REPORT = """
copy (select c.case_number, u.full_name, a.balance_cents, a.minimum_balance_cents
      from accounts a join cases c on c.id = a.case_id join users u on u.id = c.case_manager_id) to stdout (format csv)
"""
Sessions = sessionmaker[Session]


@dataclass(frozen=True)
class Work:
    """One piece of work in its three forms, and the rows that it is done on."""

    name: str
    fill: Callable[[int], str]
    bare: str
    ours: Callable[[Sessions, Path], object]
    loop: Callable[[Sessions, Path], object]


def _report(sessions: Sessions, folder: Path) -> None:
    with sessions() as session:
        build_report(session, prepare_report(session, "account_balances", {}, "America/New_York"), "csv", folder)


WORKS = (
    Work(
        "DR approval",
        lambda rows: FILL.format(cases=rows // REQUESTS_A_CASE, requests=rows),
        BARE_SQL,
        lambda sessions, _: run_in_transaction(sessions, approve_due),
        lambda sessions, _: row_by_row.approve(sessions),
    ),
    Work(
        "balance check",
        lambda rows: COMPANY.format(accounts=rows),
        BARE,
        lambda sessions, folder: draw_histogram(take_balances(sessions, folder / "balances.parquet")),
        lambda sessions, _: row_by_row.check_balances(sessions),
    ),
    Work(
        "report, CSV",
        lambda rows: COMPANY.format(accounts=rows),
        BARE_REPORT,
        _report,
        lambda sessions, folder: row_by_row.report(sessions, folder / "report.csv"),
    ),
)


def measure(large: bool) -> Part:
    part = Part(
        "e",
        "Work over many rows",
        "The bare SQL is what a person would type into psql; ours does the rest of the job as well (letters' rows, "
        "Parquet file, alerts and picture, the file of a report). The loop is an ORM's, row by row, as cron had it. "
        "Every measurement has a copy of one database to itself.",
    )
    sizes = (1_000, 10_000, 100_000, *((1_000_000,) if large else ()))
    with database_server() as server:
        for work in WORKS:
            medians: dict[int, float] = {}
            for rows in sizes:
                say(f"(e) {work.name}, {rows:,} rows")
                medians[rows] = _measure(part, server, work, rows)
            before, last = sizes[-2:]
            slope = math.log(medians[last] / medians[before]) / math.log(last / before)
            part.promises.append(Promise(f"{work.name}: slope linear or better", f"{slope:.2f}", slope <= LINEAR))
    return part


def _measure(part: Part, server: URL, work: Work, rows: int) -> float:
    """Measure the three forms on so many rows; return our median."""
    with _template(server, work.fill(rows)) as template:

        def rounds(do: Callable[[URL, Path], object], count: int) -> list[float]:
            return [_timed(server, template, do) for _ in range(count)]

        part.add(Figure(f"{work.name}, {rows:,} rows: bare SQL", rounds(lambda url, _: _run(url, work.bare), ROUNDS)))
        ours = Figure(f"ours: {work.name}, {rows:,} rows", rounds(_with_sessions(work.ours), ROUNDS))
        if rows <= LOOPED_ROWS:
            loops = rounds(_with_sessions(work.loop), ROUNDS)
            part.add(Figure(f"{work.name}, {rows:,} rows: row by row", loops))
        return part.add(ours).median


@contextmanager
def _template(server: URL, fill: str) -> Iterator[str]:
    with own_database(server) as url:
        create_platform(url)
        engine = create_engine(url)
        migrate(engine)
        engine.dispose()
        with psycopg.connect(plain(url), autocommit=True) as connection:
            connection.execute(fill)
            connection.execute("vacuum analyze")
        yield str(url.database)


def _timed(server: URL, template: str, do: Callable[[URL, Path], object]) -> float:
    with own_database(server, template=template) as url, TemporaryDirectory() as folder:
        began = time.perf_counter()
        do(url, Path(folder))
        return time.perf_counter() - began


def _run(url: URL, statement: str) -> None:
    with psycopg.connect(plain(url)) as connection, connection.cursor() as cursor:
        if "to stdout" in statement:
            with cursor.copy(statement) as rows:
                for _ in rows:
                    pass
        else:
            cursor.execute(statement)


def _with_sessions(do: Callable[[Sessions, Path], object]) -> Callable[[URL, Path], None]:
    def work(url: URL, folder: Path) -> None:
        engine = create_application_engine(url)
        do(sessionmaker(engine, expire_on_commit=False), folder)
        engine.dispose()

    return work
