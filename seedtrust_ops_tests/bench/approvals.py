"""Measures approving 100,000 requests with their letters against bare SQL: `python -m ...measuring [REQUESTS]`.

The bare SQL is what a person would type into psql: an update, with an insert of letters from what it changed. Each
measurement gets a database of its own, cloned from one template, on a server that nobody else uses.
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
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules, what_waits
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops_tests.support.databases import create_platform, own_database, plain

ROUNDS = 3
REQUESTS_A_CASE = 10
ZONE = ZoneInfo("America/New_York")
FILL = """
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
BARE_SQL = """
with approved as (
    update disbursement_requests r set status = 'approved', approved_at = now(), approved_by = 'auto:date'
    from cases c, users p
    where c.id = r.case_id and p.id = r.payee_id and r.status = 'pending' and not r.on_hold
        and r.auto_authorize_at <= now() and c.status <> 'closed' and p.is_active
    returning r.*, c.case_number, c.case_manager_id, p.full_name
), told as (
    select a.id, party.user_id from approved a
    join case_parties party on party.case_id = a.case_id and party.role in ('intended_parent', 'ip_rep')
    union select id, case_manager_id from approved
)
insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, variables)
select 'dr-approved:' || a.id || ':' || u.id, 'dr-approved', u.id, u.email, '', jsonb_build_object(
    'case_number', a.case_number, 'disbursement_request_id', a.id, 'amount_cents', a.amount_cents,
    'category', a.category, 'payee_name', a.full_name, 'approved_at', a.approved_at, 'description', a.description)
from told
join approved a on a.id = told.id
join users u on u.id = told.user_id
where u.is_active
on conflict (dedupe_key) do nothing
"""
ONE_RULE = "insert into approval_rules (name, max_amount_cents, daily_limit_cents) values ('All', 1000000, 10000000000)"
RULES_THAT_MATCH_NOTHING = """
insert into approval_rules (name, position, max_amount_cents, daily_limit_cents)
select 'Rule ' || n, n, 1000000, 0 from generate_series(1, 10) n
"""


def bare_sql(url: URL) -> None:
    with psycopg.connect(plain(url)) as connection:
        connection.execute(BARE_SQL)


def by_date(url: URL) -> None:
    run_in_transaction(sessionmaker(create_application_engine(url)), approve_due)


def by_rule(url: URL) -> None:
    run_in_transaction(sessionmaker(create_application_engine(url)), partial(approve_by_rules, zone=ZONE))


def sensor_in_vain(url: URL) -> None:
    with sessionmaker(create_application_engine(url))() as session:
        assert what_waits(session, ZONE).first is None


MEASURED: tuple[tuple[str, Callable[[URL], None], str], ...] = (
    ("bare SQL", bare_sql, ""),
    ("dr_auto_approval", by_date, ""),
    ("rule_based_approval, one rule", by_rule, ONE_RULE),
    ("pending_dr_sensor, ten rules and none of them approves", sensor_in_vain, RULES_THAT_MATCH_NOTHING),
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
    template = embedded_postgres.ensure_database(server, "measured")
    create_platform(template)
    engine = create_engine(template.set(drivername="postgresql+psycopg"))
    migrate(engine)
    engine.dispose()
    with psycopg.connect(plain(template), autocommit=True) as connection:
        connection.execute(FILL.format(cases=max(1, requests // REQUESTS_A_CASE), requests=requests))
        connection.execute("vacuum analyze")
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in MEASURED}
    for _ in range(ROUNDS):
        for name, work, before in MEASURED:
            with own_database(server, template="measured") as url:
                with psycopg.connect(plain(url)) as connection:
                    connection.execute(before or "select 1")
                began = time.perf_counter()
                work(url)
                seconds[name].append(time.perf_counter() - began)
                sys.stdout.write(f"{name}: {seconds[name][-1]:.2f} s\n")
                sys.stdout.flush()
    bare = statistics.median(seconds["bare SQL"])
    for name, measured in seconds.items():
        median = statistics.median(measured)
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        sys.stdout.write(f"{name}: {median:.2f} s ({spread}), {median / bare:.2f} times the bare SQL\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
