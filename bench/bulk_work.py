"""Part (e): work over many rows, compared with plain SQL and with a loop over rows."""

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

from bench import row_loops
from bench.environment import start_database_server
from bench.measurements import Measurement, Part, Target, log_line
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.balances.snapshot import render_histogram, write_balance_snapshot
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.reports.file_builder import build_report
from seedtrust_ops.domain.reports.report_kinds import prepare_report
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops_tests.bench.approvals import CREATE_REQUESTS_SQL, PLAIN_SQL, REQUESTS_PER_CASE
from seedtrust_ops_tests.bench.million_row_reports import CREATE_ACCOUNTS_SQL, PLAIN_CHECK_SQL
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, temporary_database

ROUNDS = 5
MAX_LOOPED_ROWS = 1_000
"""Row by row, as the cron server did it, more rows than this take minutes per round."""
MAX_LINEAR_SLOPE = 1.1
"""A slope up to this counts as linear: the exponent by which time grows with rows, between the two largest sizes."""
PLAIN_REPORT_SQL = """
copy (select c.case_number, u.full_name, a.balance_cents, a.minimum_balance_cents
      from accounts a join cases c on c.id = a.case_id join users u on u.id = c.case_manager_id) to stdout (format csv)
"""
Sessions = sessionmaker[Session]


@dataclass(frozen=True)
class Workload:
    """One piece of work in three implementations, and the SQL that creates its rows."""

    name: str
    create_rows_sql: Callable[[int], str]
    plain_sql: str
    ours: Callable[[Sessions, Path], object]
    loop: Callable[[Sessions, Path], object]


def _report(sessions: Sessions, folder: Path) -> None:
    with sessions() as session:
        build_report(session, prepare_report(session, "account_balances", {}, "America/New_York"), "csv", folder)


WORKLOADS = (
    Workload(
        "DR approval",
        lambda rows: CREATE_REQUESTS_SQL.format(cases=rows // REQUESTS_PER_CASE, requests=rows),
        PLAIN_SQL,
        lambda sessions, _: run_in_transaction(sessions, approve_due),
        lambda sessions, _: row_loops.approve(sessions),
    ),
    Workload(
        "balance check",
        lambda rows: CREATE_ACCOUNTS_SQL.format(accounts=rows),
        PLAIN_CHECK_SQL,
        lambda sessions, folder: render_histogram(write_balance_snapshot(sessions, folder / "balances.parquet")),
        lambda sessions, _: row_loops.check_balances(sessions),
    ),
    Workload(
        "report, CSV",
        lambda rows: CREATE_ACCOUNTS_SQL.format(accounts=rows),
        PLAIN_REPORT_SQL,
        _report,
        lambda sessions, folder: row_loops.report(sessions, folder / "report.csv"),
    ),
)


def measure(large: bool) -> Part:
    part = Part(
        "e",
        "Work over many rows",
        "Plain SQL is what a person would type into psql; SeedTrust Ops does the rest of the job as well (email outbox "
        "rows, Parquet file, alerts and chart, the report file). The loop uses an ORM row by row, as the cron server "
        "did. Every measurement has its own copy of one database.",
    )
    sizes = (1_000, 10_000, 100_000, *((1_000_000,) if large else ()))
    with start_database_server() as server:
        for workload in WORKLOADS:
            medians: dict[int, float] = {}
            for rows in sizes:
                log_line(f"(e) {workload.name}, {rows:,} rows")
                medians[rows] = _measure(part, server, workload, rows)
            before, last = sizes[-2:]
            slope = math.log(medians[last] / medians[before]) / math.log(last / before)
            part.targets.append(
                Target(f"{workload.name}: slope linear or better", f"{slope:.2f}", slope <= MAX_LINEAR_SLOPE)
            )
    return part


def _measure(part: Part, server: URL, workload: Workload, rows: int) -> float:
    """Measure the three implementations on `rows` rows; return our median."""
    with _template(server, workload.create_rows_sql(rows)) as template:

        def measure_rounds(run: Callable[[URL, Path], object], count: int) -> list[float]:
            return [_time(server, template, run) for _ in range(count)]

        part.add(
            Measurement(
                f"{workload.name}, {rows:,} rows: plain SQL",
                measure_rounds(lambda url, _: _run(url, workload.plain_sql), ROUNDS),
            )
        )
        ours = Measurement(
            f"SeedTrust Ops: {workload.name}, {rows:,} rows", measure_rounds(_with_sessions(workload.ours), ROUNDS)
        )
        if rows <= MAX_LOOPED_ROWS:
            loops = measure_rounds(_with_sessions(workload.loop), ROUNDS)
            part.add(Measurement(f"{workload.name}, {rows:,} rows: row by row", loops))
        return part.add(ours).median


@contextmanager
def _template(server: URL, create_rows_sql: str) -> Iterator[str]:
    with temporary_database(server) as url:
        create_platform_schema(url)
        engine = create_engine(url)
        migrate(engine)
        engine.dispose()
        with psycopg.connect(plain_url(url), autocommit=True) as connection:
            connection.execute(create_rows_sql)
            connection.execute("vacuum analyze")
        yield str(url.database)


def _time(server: URL, template: str, run: Callable[[URL, Path], object]) -> float:
    with temporary_database(server, template=template) as url, TemporaryDirectory() as folder:
        began = time.perf_counter()
        run(url, Path(folder))
        return time.perf_counter() - began


def _run(url: URL, statement: str) -> None:
    with psycopg.connect(plain_url(url)) as connection, connection.cursor() as cursor:
        if "to stdout" in statement:
            with cursor.copy(statement) as rows:
                for _ in rows:
                    pass
        else:
            cursor.execute(statement)


def _with_sessions(run: Callable[[Sessions, Path], object]) -> Callable[[URL, Path], None]:
    def work(url: URL, folder: Path) -> None:
        engine = create_application_engine(url)
        run(sessionmaker(engine, expire_on_commit=False), folder)
        engine.dispose()

    return work
