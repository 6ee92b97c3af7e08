"""Compares approving 100,000 requests, emails included, with plain SQL: `python -m ...bench.approvals [REQUESTS]`.

Plain SQL is what a person would type into psql: an update, and an insert of the emails for the updated rows. Each
measurement gets its own database, cloned from one template, on a separate server.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules, find_first_approval
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, temporary_database

ROUNDS = 3
REQUESTS_PER_CASE = 10
ZONE = ZoneInfo("America/New_York")
CREATE_REQUESTS_SQL = """
insert into users (email, full_name, role)
    select 'user' || n || '@office.test', 'User ' || n,
        (array['intended_parent', 'ip_rep', 'surrogate', 'case_manager'])[1 + n % 4]
    from generate_series(0, {cases} * 4 - 1) n;
insert into cases (case_number, case_manager_id) select 'ST-' || n, 4 * n from generate_series(1, {cases}) n;
insert into case_parties
    select n, 4 * n - 3 + part, (array['intended_parent', 'ip_rep', 'surrogate'])[1 + part]
    from generate_series(1, {cases}) n, generate_series(0, 2) part;
insert into accounts (case_id, balance_cents, minimum_balance_cents) select id, 10000000, 1000000 from cases;
insert into disbursement_requests (case_id, payee_id, amount_cents, category, auto_authorize_at)
    select 1 + n % {cases}, 4 * (1 + n % {cases}) - 1, 1000 + n % 5000, 'travel', now() - interval '1 hour'
    from generate_series(0, {requests} - 1) n;
"""
PLAIN_SQL = """
with approved as (
    update disbursement_requests r set status = 'approved', approved_at = now(), approved_by = 'auto:date'
    from cases c, users p
    where c.id = r.case_id and p.id = r.payee_id and r.status = 'pending' and not r.on_hold
        and r.auto_authorize_at <= now() and c.status <> 'closed' and p.is_active
    returning r.*, c.case_number, c.case_manager_id, p.full_name
), recipients as (
    select a.id, party.user_id from approved a
    join case_parties party on party.case_id = a.case_id and party.role in ('intended_parent', 'ip_rep')
    union select id, case_manager_id from approved
)
insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, variables)
select 'dr-approved:' || a.id || ':' || u.id, 'dr-approved', u.id, u.email, '', jsonb_build_object(
    'case_number', a.case_number, 'disbursement_request_id', a.id, 'amount_cents', a.amount_cents,
    'category', a.category, 'payee_name', a.full_name, 'approved_at', a.approved_at, 'description', a.description)
from recipients
join approved a on a.id = recipients.id
join users u on u.id = recipients.user_id
where u.is_active
on conflict (dedupe_key) do nothing
"""
ONE_RULE = "insert into approval_rules (name, max_amount_cents, daily_limit_cents) values ('All', 1000000, 10000000000)"
RULES_WITHOUT_MATCH = """
insert into approval_rules (name, position, max_amount_cents, daily_limit_cents)
select 'Rule ' || n, n, 1000000, 0 from generate_series(1, 10) n
"""


def plain_sql(url: URL) -> None:
    with psycopg.connect(plain_url(url)) as connection:
        connection.execute(PLAIN_SQL)


def approve_by_date(url: URL) -> None:
    run_in_transaction(sessionmaker(create_application_engine(url)), approve_due)


def approve_by_one_rule(url: URL) -> None:
    run_in_transaction(sessionmaker(create_application_engine(url)), partial(approve_by_rules, zone=ZONE))


def check_without_match(url: URL) -> None:
    with sessionmaker(create_application_engine(url))() as session:
        assert find_first_approval(session, ZONE) is None


WORKLOADS: tuple[tuple[str, Callable[[URL], None], str], ...] = (
    ("plain SQL", plain_sql, ""),
    ("dr_auto_approval", approve_by_date, ""),
    ("rule_based_approval, one rule", approve_by_one_rule, ONE_RULE),
    ("pending_dr_sensor, ten rules and no match", check_without_match, RULES_WITHOUT_MATCH),
)


def main(requests: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        directory = Path(folder) / "d"
        server = embedded_postgres.start(directory)
        try:
            measure(server, requests)
        finally:
            embedded_postgres.stop(directory)


def measure(server: URL, requests: int) -> None:
    template = embedded_postgres.ensure_database(server, "bench")
    create_platform_schema(template)
    engine = create_engine(template.set(drivername="postgresql+psycopg"))
    migrate(engine)
    engine.dispose()
    with psycopg.connect(plain_url(template), autocommit=True) as connection:
        connection.execute(CREATE_REQUESTS_SQL.format(cases=max(1, requests // REQUESTS_PER_CASE), requests=requests))
        connection.execute("vacuum analyze")
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in WORKLOADS}
    for _ in range(ROUNDS):
        for name, work, setup_sql in WORKLOADS:
            with temporary_database(server, template="bench") as url:
                with psycopg.connect(plain_url(url)) as connection:
                    connection.execute(setup_sql or "select 1")
                began = time.perf_counter()
                work(url)
                seconds[name].append(time.perf_counter() - began)
                sys.stdout.write(f"{name}: {seconds[name][-1]:.2f} s\n")
                sys.stdout.flush()
    plain = statistics.median(seconds["plain SQL"])
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        sys.stdout.write(f"{name}: {median:.2f} s ({spread}), {median / plain:.2f} times plain SQL\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
