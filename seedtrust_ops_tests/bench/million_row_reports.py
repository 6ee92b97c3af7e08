"""Measures seconds and peak memory of large reports and the balance check: `python -m ...bench.million_row_reports`.

It creates a million accounts on a separate embedded server (a minute or two), and measures each piece of work in a
new process, as every run has its own process.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.migrations.migrator import migrate

CREATE_ACCOUNTS_SQL = """
insert into users (email, full_name, role)
    select 'u' || i || '@example.test', 'Person ' || i, 'case_manager' from generate_series(1, 1000) i;
insert into cases (case_number, case_manager_id)
    select 'ST-' || i, 1 + i % 1000 from generate_series(1, {accounts}) i;
insert into accounts (case_id, balance_cents, minimum_balance_cents)
    select i, (i * 7919::bigint) % 5000000, 500000 * (1 + i % 3) from generate_series(1, {accounts}) i;
insert into ledger_entries (account_id, amount_cents, kind)
    select id, balance_cents, 'deposit' from accounts where balance_cents > 0;
"""
PLAIN_CHECK_SQL = """
select count(*), sum(a.balance_cents), sum(greatest(a.minimum_balance_cents - a.balance_cents, 0)),
       count(*) filter (where a.balance_cents <> coalesce(l.cents, 0))
from cases c join accounts a on a.case_id = c.id
left join (select account_id, sum(amount_cents) cents from ledger_entries group by 1) l on l.account_id = a.id
where c.status = 'active'
"""
WORKLOADS = ("check", "csv", "xlsx")


def main() -> None:
    """Create the accounts and measure, or do one piece of work if `--work` is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=1_000_000)
    parser.add_argument("--work", choices=WORKLOADS)
    parser.add_argument("--url")
    arguments = parser.parse_args()
    if arguments.work:
        _work(arguments.work, arguments.url)
        return
    with TemporaryDirectory() as folder:
        server = embedded_postgres.start(Path(folder, "server", "postgres"))
        try:
            _measure(embedded_postgres.ensure_database(server, "large").render_as_string(False), arguments.accounts)
        finally:
            embedded_postgres.stop(Path(folder, "server", "postgres"))


def _measure(url: str, accounts: int) -> None:
    engine = create_engine(url)
    migrate(engine, create_platform=True)
    with engine.begin() as connection:
        connection.execute(text(CREATE_ACCOUNTS_SQL.format(accounts=accounts)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))
        began = monotonic()
        connection.execute(text(PLAIN_CHECK_SQL)).all()
    print(f"plain SQL query: {monotonic() - began:.1f} s", flush=True)  # noqa: T201
    for work in WORKLOADS:
        subprocess.run([sys.executable, "-m", __spec__.name, "--work", work, "--url", url], check=True)


def _work(work: str, url: str) -> None:
    sessions = sessionmaker(create_application_engine(make_url(url)))
    with TemporaryDirectory() as folder:
        if work == "check":
            import matplotlib.figure  # noqa: F401
            import pandas  # noqa: F401
            import pyarrow.parquet  # noqa: F401  loaded before, so that loading is not measured

            from seedtrust_ops.domain.balances.snapshot import render_histogram, write_balance_snapshot

            began = monotonic()
            render_histogram(write_balance_snapshot(sessions, Path(folder, "balances.parquet")))
            description = "balances, alerts and chart"
        else:
            from seedtrust_ops.domain.reports.file_builder import build_report
            from seedtrust_ops.domain.reports.report_kinds import prepare_report

            began = monotonic()
            with sessions() as session:
                report = prepare_report(session, "account_balances", {}, "America/New_York")
                built = build_report(session, report, work, Path(folder))
            description = f"{built.rows:,} rows, {built.size / 1e6:.0f} MB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{work}: {monotonic() - began:.1f} s, peak {peak:.0f} MB ({description})", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
