"""What each database role must not be able to do, in one table: every statement is refused, and nothing else is.

Each statement is tried in a transaction of its own, as somebody who has stolen the role's password would.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError

from seedtrust_ops.domain.alerts.store import CLOSED_BY_PEOPLE
from seedtrust_ops_tests.deploy.conftest import (
    APP,
    DAGSTER,
    KEYS,
    MIGRATE,
    OPERATOR,
    PLATFORM_OWNER,
    READ,
    ConnectAs,
    create_login,
)

INSUFFICIENT_PRIVILEGE = "42501"
EXPECTED = {
    "ops.post_ledger_entries": {INSUFFICIENT_PRIVILEGE, "23514"},
    "ops.post_ledger_correction": {INSUFFICIENT_PRIVILEGE, "23514"},
    "ops.post_explained_transfer": {INSUFFICIENT_PRIVILEGE, "23514"},
    "ops.draft_payments": {INSUFFICIENT_PRIVILEGE, "23514"},
    "update ops.locks": {"P0001"},
}
"""The error of statements that contain these words; of all others it is a lack of privileges."""

ROWS = """
insert into users (id, email, full_name, role) values (1, 'ana@example.test', 'Ana', 'admin');
insert into cases (id, case_number) values (1, 'CASE-1');
insert into accounts (id, case_id, balance_cents) values (1, 1, 100000);
insert into ledger_entries (account_id, amount_cents, kind) values (1, 101000, 'deposit');
insert into disbursement_requests (id, case_id, payee_id, amount_cents, category, status, on_hold, approved_by) values
    (11, 1, 1, 500, 'travel', 'pending', false, null), (12, 1, 1, 500, 'travel', 'pending', true, null),
    (13, 1, 1, 500, 'travel', 'denied', false, null), (14, 1, 1, 500, 'travel', 'approved', false, 'user:1'),
    (15, 1, 1, 500, 'travel', 'paid', false, 'auto:date'), (16, 1, 1, 500, 'travel', 'approved', false, 'user:1');
update disbursement_requests set paid_at = now() where status = 'paid';
insert into huntington_batches (id, status) values (21, 'draft'), (22, 'held'), (23, 'processing');
insert into huntington_transactions (id, batch_id, disbursement_request_id, method, amount_cents, payee_name,
    routing_number, account_number_encrypted, account_number_last4, account_type, status)
select id, 23, request_id, 'ach', 500, 'Ana', '044000024', 'x', '1234', 'checking', status
  from (values (31, 14, 'processing'), (32, 15, 'completed'), (33, 16, 'returned'), (34, 16, 'completed'),
               (35, 14, 'processing'), (36, 14, 'pending'), (37, 14, 'pending'))
       as transaction (id, request_id, status);
insert into ops.transfer_evidence (transaction_id, state, disbursement_request_id, account_id, method, amount_cents,
    payee_name, routing_number, account_number_encrypted, account_number_last4, account_type)
select id, case status when 'completed' then 'moved' when 'returned' then 'not_moved' else 'in_flight' end,
       disbursement_request_id, 1, method, amount_cents, payee_name, routing_number, account_number_encrypted,
       account_number_last4, account_type
  from huntington_transactions where id <> 36;
update ops.transfer_evidence set state = 'not_moved', payee_name = 'Anna' where transaction_id = 37;
update ops.transfer_evidence set state = 'contradicted', settled_as = 'failed' where transaction_id = 35;
insert into ops.statuses_before_payment (disbursement_request_id, status) values (15, 'denied');
insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id) values
    (1, -500, 'disbursement', 32), (1, -500, 'disbursement', 33);
insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, started_at) values
    (31, 'seedtrust-transaction-31', 1, 'started', '2026-01-01 12:00+00');
insert into ops.alerts (id, rule, subject, severity, resolved_at) values
    (42, 'reports_waiting', 'report requests', 'HIGH', null), (43, 'reports_waiting', 'a past one', 'HIGH', now());
insert into ops.switches (name) values ('transfers_halted');
insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method, amount_cents,
    created_at, updated_at, problem)
    values ('tr_1', 'x', 'x', 'completed', 'wire', 500, now(), now(), 'x'),
           ('tr_2', 'x', 'x', 'rejected', 'wire', 500, now(), now(), 'x');
"""
ATTEMPT = (
    "insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, started_at, finished_at)"
    " values (31, 'seedtrust-transaction-31', {}, '{}', {}, {})"
)
APPROVE = (
    "update public.disbursement_requests set status = 'approved', approved_by = '{}', approved_at = {} where id = {}"
)
POST = "select ops.post_ledger_entries('{}', '{{{}}}', '{{{}}}', '{{memo}}')"

RECORD_SEND = (
    "insert into ops.transfer_evidence (transaction_id, state, disbursement_request_id, account_id, method,"
    " amount_cents, payee_name, routing_number, account_number_encrypted, account_number_last4, account_type)"
    " select id, 'in_flight', disbursement_request_id, 1, method, amount_cents, payee_name, routing_number,"
    " account_number_encrypted, account_number_last4, account_type from public.huntington_transactions where id = {} {}"
)
SETTLE = (
    "update ops.transfer_evidence set settled_as = '{0}', changed_at = now(),"
    " state = case '{0}' when 'completed' then 'moved' else 'not_moved' end where transaction_id = 31; "
)

MINT_MONEY = [
    "insert into public.ledger_entries (account_id, amount_cents, kind) values (1, 1000000, 'deposit')",
    "insert into public.ledger_entries (account_id, amount_cents, kind) values (1, -1, 'fee')",
    "insert into public.ledger_entries (account_id, amount_cents, kind, huntington_transaction_id)"
    " values (1, 1000000, 'reversal', 33)",
    "delete from public.ledger_entries",
    "update public.ledger_entries set amount_cents = 1",
    "truncate public.ledger_entries",
    "update public.accounts set balance_cents = balance_cents + 1000000",
    "set constraints all deferred; update public.accounts set balance_cents = balance_cents + 1000000; commit",
    POST.format("deposit", 32, 1_000_000),
    POST.format("fee", 32, -500),
    POST.format("disbursement", 34, 500),
    POST.format("disbursement", 34, -499),
    POST.format("disbursement", 31, -500),
    POST.format("disbursement", 99, -500),
    POST.format("reversal", 33, 1_000_000),
    POST.format("reversal", 32, 500),
    POST.format("reversal", 34, 500),
    "select ops.draft_payments('{14}', '{99}')",
    "select ops.draft_payments('{11}', '{36}')",
    "insert into public.huntington_batches (status) values ('queued')",
    "insert into public.huntington_transactions (batch_id, method, amount_cents, payee_name, routing_number,"
    " account_number_encrypted, account_number_last4, account_type)"
    " values (21, 'wire', 1, 'me', '044000024', 'x', '1234', 'checking')",
    "select ops.post_ledger_correction(33, 1000000, 'memo')",
    "select ops.post_ledger_correction(32, 500, 'memo')",
    "insert into ops.ledger_corrections (ledger_entry_id, transaction_id) values (1, 32)",
    "update ops.transfer_evidence set amount_cents = 1 where transaction_id = 34; "
    + POST.format("disbursement", 34, -1),
]
APPROVE_AND_PAY = [
    APPROVE.format("user:1", "now()", 11),
    "set constraints all deferred; " + APPROVE.format("user:1", "now()", 11) + "; commit",
    APPROVE.format("auto:", "now()", 11),
    APPROVE.format("auto:date", "now() - interval '1 day'", 11),
    APPROVE.format("auto:date", "null", 11),
    APPROVE.format("auto:date", "now()", 12),
    APPROVE.format("auto:date", "now()", 13),
    APPROVE.format("auto:date", "now()", 14),
    "update public.disbursement_requests set status = 'pending' where id = 13",
    "update public.disbursement_requests set status = 'denied' where id = 11",
    "update public.disbursement_requests set status = 'paid', paid_at = now() where id = 11",
    "update public.disbursement_requests set status = 'paid', paid_at = now() where id = 14",
    "update public.disbursement_requests set status = 'paid', approved_by = 'auto:date' where id = 16",
    "update public.disbursement_requests set status = 'approved', paid_at = null where id = 15",
    "update public.disbursement_requests set paid_at = null where id = 15",
    "update public.disbursement_requests set amount_cents = 1",
    "update public.disbursement_requests set payee_id = 1",
    "update public.disbursement_requests set on_hold = false",
    "insert into public.disbursement_requests (case_id, payee_id, amount_cents, category) values (1, 1, 1, 'x')",
    "update public.approval_rules set max_amount_cents = 1",
    "insert into public.approval_rules (name, max_amount_cents) values ('x', 1)",
    "insert into public.huntington_batches (status) values ('queued')",
    "update public.huntington_batches set status = 'queued' where id = 21",
    "update public.huntington_batches set status = 'queued' where id = 22",
    "update public.huntington_batches set status = 'processing' where id = 22",
    "update public.huntington_batches set priority = 1",
    "update public.huntington_transactions set status = 'pending' where id = 32",
    "update public.huntington_transactions set status = 'failed' where id = 32",
    "update public.huntington_transactions set status = 'completed' where id = 33",
    "update public.huntington_transactions set amount_cents = 1",
    "update public.huntington_transactions set disbursement_request_id = 11",
    "update public.huntington_transactions set routing_number = '044000024'",
    "update public.huntington_transactions set account_number_encrypted = ''",
    "delete from public.huntington_transactions",
]
CHANGE_EVIDENCE = [
    "update ops.transfer_evidence set disbursement_request_id = 14 where transaction_id = 33; "
    "update public.disbursement_requests set status = 'paid', paid_at = now() where id = 14",
    "update ops.transfer_evidence set account_id = 2",
    "update ops.transfer_evidence set account_number_encrypted = 'y' where transaction_id = 31",
    "update ops.transfer_evidence set state = 'in_flight', amount_cents = 1 where transaction_id = 33",
    "update ops.transfer_evidence set settled_as = 'failed', changed_at = now() where transaction_id = 31",
    "update ops.transfer_evidence set settled_seen_at = now() where transaction_id = 31",
    "update ops.transfer_evidence set unknown_to_bank_at = now() - interval '2 days' where transaction_id = 31",
    "update ops.transfer_evidence set state = 'not_moved' where transaction_id = 35",
    "insert into ops.transfer_evidence (transaction_id, state, method, amount_cents, payee_name, routing_number,"
    " account_number_encrypted, account_number_last4, account_type)"
    " values (36, 'in_flight', 'ach', 1, 'Ana', '044000024', 'x', '1234', 'checking')",
    "delete from ops.transfer_evidence",
    "insert into ops.statuses_before_payment (disbursement_request_id, status) values (13, 'approved')",
    "update ops.statuses_before_payment set status = 'approved', recorded_at = now()",
    "delete from ops.statuses_before_payment",
    "update ops.unreadable_transfers set subject = 'x'",
    "update ops.unreadable_transfers set bank_transfer_id = 'x'",
    "delete from ops.unreadable_transfers",
    ATTEMPT.format(2, "started", "now() - interval '2 days'", "null"),
    ATTEMPT.format(2, "started", "now() + interval '2 days'", "null"),
    ATTEMPT.format(1, "unknown_to_bank", "'2026-01-01 12:00+00'", "now() - interval '2 days'"),
    ATTEMPT.format(1, "unknown_to_bank", "now()", "now()"),
    ATTEMPT.format(7, "unknown_to_bank", "now() - interval '2 days'", "now()"),
    ATTEMPT.format(0, "unknown_to_bank", "now() - interval '2 days'", "now()"),
    ATTEMPT.format(1, "refused", "'2026-01-01 12:00+00'", "null"),
    "insert into ops.transfer_failures default values",
    "update ops.transfer_failures set reason = 'x'",
    "delete from ops.transfer_failures",
    "update ops.transfer_attempts set outcome = 'completed'",
    "delete from ops.transfer_attempts",
    "truncate ops.transfer_attempts",
    "insert into ops.alerts (rule, subject, severity, resolved_at) values ('x', 'y', 'LOW', now())",
    "insert into ops.alerts (rule, subject, severity, acknowledged_at) values ('x', 'y', 'LOW', now())",
    "update ops.alerts set acknowledged_at = now(), acknowledged_by = 'Ana'",
    "update ops.alerts set rule = 'x'",
    "update ops.alerts set opened_at = now()",
    "update ops.alerts set severity = 'LOW' where id = 42",
    "update ops.alerts set resolved_at = now() - interval '1 day' where id = 42",
    "update ops.alerts set resolved_at = null where id = 43",
    "update ops.alerts set detail = 'Nothing happened.' where id = 43",
    *(
        f"insert into ops.alerts (rule, subject, severity) values ('{rule}', 'transaction 31', 'CRITICAL');"
        f" update ops.alerts set resolved_at = now() where rule = '{rule}'"
        for rule in sorted(CLOSED_BY_PEOPLE)
    ),
    "delete from ops.alerts",
    "update ops.alert_notifications set channel = 'email'",
    "delete from ops.alert_notifications",
    "update ops.notifications set recipient_email = 'me@example.test'",
    "update ops.notifications set variables = '{}'",
    "update ops.outgoing_events set body = '{}'",
    "truncate ops.notifications",
    "delete from ops.notifications",
    "delete from ops.batch_leases",
    "update ops.alembic_version set version_num = '0001'",
    "delete from ops.switches",
    "update ops.switches set name = 'x'",
    "insert into ops.switches (name) values ('x')",
    "insert into ops.audit_events (action, subject) values ('resume', 'transfers_halted')",
    "update ops.audit_events set actor = 'ana'",
    "delete from ops.audit_events",
    "select ops.record_audit_event('resume', 'transfers_halted', '')",
    "update ops.locks set name = 'x'",
    "delete from ops.locks",
    "lock table ops.alembic_version in share row exclusive mode",
]
EXPLAIN = [
    "update ops.unknown_transfers set explained_at = now() where bank_transfer_id = 'tr_1'",
    "update ops.unknown_transfers set explained_at = now(), transaction_id = 99 where bank_transfer_id = 'tr_1'",
    "update ops.unknown_transfers set explained_by = 'ana'",
    "update ops.unknown_transfers set disbursement_request_id = 14, account_id = 1",
    "insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method, amount_cents,"
    " created_at, updated_at, problem, explained_at) values ('tr_3', 'x', 'x', 'completed', 'wire', 1, now(), now(),"
    " 'x', now())",
    "update ops.unknown_transfers set first_seen_at = now()",
    "update ops.unknown_transfers set bank_transfer_id = 'tr_9' where bank_transfer_id = 'tr_1'",
    "delete from ops.unknown_transfers",
    "truncate ops.unknown_transfers",
    "select ops.post_explained_transfer('tr_1', 'memo')",
    "insert into ops.ledger_corrections (ledger_entry_id, bank_transfer_id) values (1, 'tr_1')",
    "update ops.cutovers set at = now()",
    "insert into ops.cutovers (job) values ('x')",
]
EXPLAINED = (
    "update ops.unknown_transfers set explained_at = clock_timestamp(), explained_by = 'ana', explanation = 'x'{}"
    " where bank_transfer_id = '{}'; "
)
BREAK_OUT = [
    "alter table public.users add column nickname text",
    "alter table public.ledger_entries disable trigger all",
    "alter table ops.transfer_attempts disable trigger all",
    "drop table ops.transfer_attempts",
    "drop trigger append_only on ops.transfer_attempts",
    "drop trigger seedtrust_ops_guard_balance on public.accounts",
    "create or replace function ops.guard_alert() returns trigger language plpgsql as 'begin return null;end'",
    "create table public.mine (id int)",
    "create temporary table mine (id int)",
    "create table ops.mine (id int)",
    "create schema mine",
    "create function public.mine() returns int language sql as 'select 1'",
    "create trigger mine before insert on public.users for each row execute function ops.refuse_change()",
    "create index on public.ledger_entries (memo)",
    "set session_replication_role = replica",
    "set session authorization seedtrust_ops_migrate",
    "set role seedtrust_ops_migrate",
    "set role seedtrust_ops_operator",
    "set role seedtrust_platform",
    "create role mine",
    "alter role seedtrust_ops_app superuser",
    "grant seedtrust_ops_operator to seedtrust_ops_app",
    "copy public.users to program 'cat'",
    "copy public.users to '/tmp/users'",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select rolpassword from pg_authid",
    "update public.accounts set minimum_balance_cents = 0",
    "delete from public.accounts",
    "update public.users set email = 'me@example.test'",
    "update public.users set role = 'admin'",
    "insert into public.users (email, full_name, role) values ('me', 'me', 'admin')",
    "delete from public.users",
    "update public.cases set close_on = null",
    "insert into public.case_parties values (1, 1, 'ip_rep')",
    "update public.report_requests set kind = 'case_ledger'",
    "delete from public.job_runs",
    "update public.errors set message = ''",
    "select * from payroll.salaries",
    "select * from public.password_resets",
]

WORKER = "seedtrust_test_worker"
"""A login of its own that inherits the jobs' role; the guards hold for it too."""
FORBIDDEN = {
    APP: [*MINT_MONEY, *APPROVE_AND_PAY, *CHANGE_EVIDENCE, *EXPLAIN, *BREAK_OUT],
    WORKER: [*MINT_MONEY, *APPROVE_AND_PAY, *CHANGE_EVIDENCE, *EXPLAIN, *BREAK_OUT],
    OPERATOR: [
        *MINT_MONEY,
        "select account_number_encrypted from public.huntington_transactions",
        "select content from ops.notification_attachments",
        "update public.disbursement_requests set status = 'approved'",
        "update public.huntington_transactions set status = 'failed'",
        SETTLE.format("failed") + "update public.huntington_transactions set status = 'completed' where id = 31",
        SETTLE.format("failed") + "update public.disbursement_requests set status = 'approved' where id = 13",
        SETTLE.format("failed") + "update public.huntington_batches set status = 'queued' where id = 23",
        "update public.huntington_batches set status = 'queued' where id = 21",
        "update public.huntington_batches set status = 'processing' where id = 22",
        "update public.huntington_batches set status = 'draft' where id = 22",
        "update public.huntington_batches set queued_at = now() where id = 22",
        "update public.huntington_batches set priority = 1",
        SETTLE.format("failed") + "select ops.post_ledger_correction(31, -500, 'memo')",
        SETTLE.format("completed") + "select ops.post_ledger_correction(31, 500, 'memo')",
        "update ops.transfer_evidence set amount_cents = 1",
        "update ops.transfer_evidence set state = 'not_moved', changed_at = now() where transaction_id = 31",
        "update ops.transfer_evidence set unknown_to_bank_at = now() - interval '2 days' where transaction_id = 31",
        "update ops.transfer_evidence set settled_as = null, changed_at = now() where transaction_id = 35",
        "update ops.transfer_evidence set settled_as = 'failed', changed_at = now() + interval '1 day'"
        " where transaction_id = 31",
        "delete from ops.transfer_evidence",
        "select account_number_encrypted from ops.transfer_evidence",
        "insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, started_at)"
        " values (31, 'x', 1, 'started', now())",
        "update ops.unknown_transfers set explained_at = now(), explanation = 'x'",
        "update ops.unknown_transfers set status = 'rejected' where bank_transfer_id = 'tr_1'",
        EXPLAINED.format(", explained_at = now() - interval '1 day'", "tr_1").replace(
            "explained_at = clock_timestamp(), ", ""
        ),
        EXPLAINED.format(", amount_cents = 1", "tr_1"),
        EXPLAINED.format("", "tr_1") + "select ops.post_explained_transfer('tr_1', 'memo')",
        EXPLAINED.format(", disbursement_request_id = 14, account_id = 2", "tr_1")
        + "select ops.post_explained_transfer('tr_1', 'memo')",
        EXPLAINED.format("", "tr_1") + "update public.disbursement_requests set status = 'paid' where id = 14",
        "insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method, amount_cents,"
        " created_at, updated_at, problem) values ('tr_3', 'x', 'x', 'completed', 'wire', 1, now(), now(), 'x')",
        "delete from ops.unknown_transfers",
        "update ops.switches set set_by = 'ana'",
        "truncate ops.switches",
        "delete from ops.alerts",
        "update ops.alerts set severity = 'LOW'",
        "update ops.notifications set recipient_email = 'me@example.test'",
        "insert into ops.audit_events (action, subject) values ('resume', 'transfers_halted')",
        "update ops.audit_events set actor = 'ana'",
        "delete from ops.audit_events",
        "select ops.record_audit_event('resume', 'transfers_halted', '')",
        "create temporary table mine (id int)",
        "set role seedtrust_ops_app",
        "select * from payroll.salaries",
    ],
    KEYS: [
        "select payee_name from public.huntington_transactions",
        "select payee_name from ops.transfer_evidence",
        "update ops.transfer_evidence set state = 'not_moved'",
        "select full_name from public.users",
        "select * from ops.transfer_attempts",
        "update public.huntington_transactions set updated_at = now()",
        "update public.huntington_transactions set status = 'completed'",
        "insert into ops.switches (name) values ('x')",
        "insert into ops.audit_events (action, subject) values ('key rotation', 'x')",
        "delete from ops.audit_events",
        "create temporary table mine (id int)",
        "select * from payroll.salaries",
    ],
    READ: [
        "select account_number_encrypted from public.huntington_transactions",
        "select * from public.huntington_transactions",
        "select routing_number from public.huntington_transactions",
        "select routing_number from ops.transfer_evidence",
        "select account_number_encrypted from ops.transfer_evidence",
        "select content from ops.notification_attachments",
        "set transaction read write; update public.users set is_on_site = true",
        "set transaction read write; insert into ops.switches (name) values ('x')",
        "set transaction read write; delete from ops.alerts",
        "set transaction read write; create table public.mine (id int)",
        "set transaction read write; select name from ops.locks for update",
        "set transaction read write; lock table ops.locks in exclusive mode",
        "select * from payroll.salaries",
    ],
    MIGRATE: ["create role mine", "alter role seedtrust_ops_migrate superuser", "select * from payroll.salaries"],
}


@pytest.fixture
def database(roles: URL) -> Iterator[Engine]:
    """A superuser's engine on the database with its roles and some rows, and with tables that are nobody's business."""
    engine = create_engine(roles)
    with engine.begin() as superuser:
        superuser.exec_driver_sql(ROWS)
        for statement in (
            "create schema payroll",
            "create table payroll.salaries (cents bigint)",
            "create table public.password_resets (token text)",
        ):
            superuser.execute(text(statement))
    create_login(roles, WORKER, of=APP)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("role", FORBIDDEN)
@pytest.mark.usefixtures("database")
def test_roles_cannot_do_forbidden_statements(connect_as: ConnectAs, role: str) -> None:
    """Every statement is refused for lack of a privilege or by a guard, not because it is otherwise invalid."""
    connection = connect_as(role)
    allowed = []
    for statement in FORBIDDEN[role]:
        expected = next((states for words, states in EXPECTED.items() if words in statement), {INSUFFICIENT_PRIVILEGE})
        error = try_statement(connection, statement)
        if error is None or getattr(error.orig, "sqlstate", None) not in expected:
            allowed.append(f"{statement}: {error and error.orig}")
    assert not allowed, "\n".join(allowed)


def try_statement(connection: Connection, statement: str) -> DBAPIError | None:
    """Execute the statement, or several, and roll back; return the error that refused it."""
    try:
        for part in statement.removesuffix("; ").split("; "):
            connection.execute(text(part))
    except DBAPIError as error:
        return error
    finally:
        connection.rollback()
    return None


WORK_OF_JOBS = [
    APPROVE.format("auto:date", "now()", 11),
    APPROVE.format("auto:rule:7", "now()", 11),
    "update public.huntington_batches set status = 'queued' where id = 23",
    "update public.huntington_batches set status = 'held' where id = 23",
    ATTEMPT.format(2, "started", "clock_timestamp()", "null"),
    ATTEMPT.format(1, "unknown_to_bank", "'2026-01-01 12:00+00'", "clock_timestamp()"),
    POST.format("disbursement", 34, -500)
    + "; update public.disbursement_requests set status = 'paid', paid_at = now() where id = 16",
    POST.format("reversal", 33, 500),
    "insert into ops.alerts (rule, subject, severity) values ('amount_differs', 'transaction 34', 'CRITICAL'); "
    + POST.format("disbursement", 34, -499),
    "update ops.alerts set severity = 'CRITICAL' where id = 42",
    "update ops.alerts set resolved_at = now() where id = 42",
    "select name from ops.locks for update",
    "select ops.draft_payments('{14}', '{36}')",
    RECORD_SEND.format(36, "on conflict (transaction_id) do update set state = 'in_flight'"),
    RECORD_SEND.format(
        37, "on conflict (transaction_id) do update set state = 'in_flight', payee_name = excluded.payee_name"
    ),
    "update ops.transfer_evidence set state = 'not_moved', unknown_to_bank_at = null where transaction_id = 31",
    "update ops.transfer_evidence set unknown_to_bank_at = clock_timestamp() where transaction_id = 31",
    "update ops.transfer_evidence set state = 'in_flight', unknown_to_bank_at = null where transaction_id = 33",
    "insert into ops.unreadable_transfers (subject, problem, next_inquiry_at) values ('x', 'y', now())"
    " on conflict (subject) do update set problem = 'z', resolved_at = null",
    "update ops.transfer_evidence set settled_as = null, settled_seen_at = null where transaction_id = 35",
    "insert into ops.statuses_before_payment (disbursement_request_id, status) values (13, 'denied')",
    "insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method, amount_cents,"
    " created_at, updated_at, problem) values ('tr_3', 'x', 'x', 'completed', 'wire', 1, now(), now(), 'x')",
    "update ops.unknown_transfers set status = 'returned', updated_at = now(), explained_at = null",
    "update ops.unknown_transfers set explained_at = clock_timestamp(), transaction_id = 31",
]


@pytest.mark.usefixtures("database")
def test_guards_let_the_jobs_do_their_work(connect_as: ConnectAs) -> None:
    connection = connect_as(APP)
    errors = [f"{one}: {error.orig}" for one in WORK_OF_JOBS if (error := try_statement(connection, one)) is not None]
    assert errors == []


def test_guards_let_operators_settle_and_release(database: Engine, connect_as: ConnectAs) -> None:
    connection = connect_as(OPERATOR)
    for statement in (
        SETTLE.format("completed") + "update public.huntington_transactions set status = 'completed' where id = 31",
        SETTLE.format("completed") + "select ops.post_ledger_correction(31, -500, 'memo')",
        SETTLE.format("failed") + "update public.disbursement_requests set status = 'approved' where id = 14",
        "update public.huntington_batches set status = 'queued', queued_at = now(), finished_at = null where id = 22",
    ):
        error = try_statement(connection, statement)
        assert error is None, f"{statement}: {error}"


def test_guards_let_operators_explain_and_book(database: Engine, connect_as: ConnectAs) -> None:
    connection = connect_as(OPERATOR)
    for statement in (
        EXPLAINED.format("", "tr_2"),
        EXPLAINED.format(", disbursement_request_id = 14, account_id = 1", "tr_1")
        + "select ops.post_explained_transfer('tr_1', 'memo'); "
        + "update public.disbursement_requests set status = 'paid', paid_at = now() where id = 14",
    ):
        error = try_statement(connection, statement)
        assert error is None, f"{statement}: {error}"


def test_guards_do_not_bind_the_platforms_applications(database: Engine, connect_as: ConnectAs) -> None:
    web = create_login(database.url, "seedtrust_test_web")
    with database.begin() as superuser:
        superuser.execute(text(f"grant select, insert, update on all tables in schema public to {web}"))
        superuser.execute(text(f"grant usage, select on all sequences in schema public to {web}"))
        superuser.execute(text(f"grant connect on database {database.url.database} to {web}"))
    for role in (web, PLATFORM_OWNER):
        connection = connect_as(role)
        for statement in (
            "insert into public.ledger_entries (account_id, amount_cents, kind) values (1, 1000000, 'deposit')",
            "update public.accounts set balance_cents = balance_cents + 1000000",
            APPROVE.format("user:1", "now() - interval '1 day'", 11),
            APPROVE.format("user:1", "now()", 13),
            "update public.huntington_batches set status = 'queued' where id in (21, 22)",
            "update public.huntington_transactions set status = 'pending', account_number_encrypted = 'y'",
        ):
            error = try_statement(connection, statement)
            assert error is None, f"{role}: {statement}: {error}"


def test_posting_needs_no_membership_in_the_platforms_role(database: Engine, connect_as: ConnectAs) -> None:
    with database.begin() as superuser:
        superuser.execute(text(f"revoke {PLATFORM_OWNER} from {MIGRATE}"))
    connection = connect_as(APP)
    connection.execute(text(POST.format("disbursement", 34, -500)))
    assert connection.scalar(text("select balance_cents from public.accounts")) == 99_500
    assert connection.scalar(text("select ops.draft_payments('{14}', '{36}')")) is not None


@pytest.mark.parametrize("login", [DAGSTER, "seedtrust_test_nobody"])
def test_logins_without_privileges_cannot_connect(roles: URL, connect_as: ConnectAs, login: str) -> None:
    create_login(roles, login)
    with pytest.raises(OperationalError, match="permission denied for database"):
        connect_as(login)
