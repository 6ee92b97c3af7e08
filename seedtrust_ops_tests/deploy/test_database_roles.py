"""deploy/database_roles.sql: every job runs as its role, and no role can do more than it needs."""

from collections.abc import Iterator

import dagster as dg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import ProgrammingError
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.database.engine import application_engine, create_application_engine
from seedtrust_ops.migrations.migrator import HEAD_REVISION, migrate
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import OpsTable, PlatformTable
from seedtrust_ops_tests.deploy.conftest import (
    APP,
    DAGSTER,
    KEYS,
    MIGRATE,
    PLATFORM_OWNER,
    READ,
    ConnectAs,
    apply_roles,
    assign_platform_owner,
)
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.all_jobs import (
    LONG_TIMEOUTS,
    create_work_for_every_job,
    evaluate_every_automation,
    queue_another_batch,
    run_every_job,
    unexpected_failures,
)
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.key_rotation_helpers import new_key

INSUFFICIENT_PRIVILEGE = "42501"


def url_as(url: URL, role: str) -> str:
    return plain_url(url.set(username=role))


@pytest.fixture
def app_role_environment(
    roles: URL,
    jobs_environment: dict[str, str],
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    set_variables: SetVariables,
) -> None:
    """The environment of a production process whose database user is the jobs' role."""
    set_variables(SEEDTRUST_DATABASE_URL=url_as(roles, APP), **LONG_TIMEOUTS)
    with application_engine().connect() as connection:
        assert connection.scalar(text("select current_user")) == APP


@pytest.fixture
def refused_statements() -> Iterator[list[str]]:
    """Every statement that is refused for lack of a privilege, even if the caller handles the error."""
    statements: list[str] = []

    def record(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == INSUFFICIENT_PRIVILEGE:
            statements.append(context.statement or "")

    event.listen(Engine, "handle_error", record)
    yield statements
    event.remove(Engine, "handle_error", record)


@pytest.mark.timeout(600)  # on a busy machine; it takes about 10 s on a quiet one
@pytest.mark.usefixtures("app_role_environment")
def test_jobs_sensors_and_schedules_run_as_the_jobs_role(
    company: Company, bank: BankProcess, instance: dg.DagsterInstance, refused_statements: list[str]
) -> None:
    batch_id = create_work_for_every_job(company)
    results = run_every_job(instance, bank, batch_id, company.sessions)
    assert unexpected_failures(results) == {}
    assert company.statuses(batch_id) == ["completed", "completed", "returned", "failed"]
    assert company.unbalanced_accounts() == []
    queue_another_batch(company)
    launched = evaluate_every_automation(instance)
    assert refused_statements == []
    assert set(launched) >= {"huntington_batch_sensor", "job_run_sensor", "report_generation_schedule"}
    with company.sessions() as session:
        assert session.scalar(text("select count(*) from ops.notifications where status = 'sent'")) > 10
        assert session.scalar(text("select count(*) from job_runs where status = 'COMPLETED'")) > 5
        assert set(session.scalars(text("select status from report_requests"))) == {3, 4}
        assert session.scalar(text("select count(*) from ops.balance_alerts")) > 0


@pytest.mark.usefixtures("app_role_environment")
@pytest.mark.parametrize(
    "command",
    [
        ("transfers", "halt", "--reason", "a test"),
        ("transfers", "resume"),
        ("notifications", "retry"),
        ("rules", "explain", "1"),
        ("status",),
    ],
    ids=" ".join,
)
def test_commands_work_as_the_jobs_role(
    command: tuple[str, ...], company: Company, instance: dg.DagsterInstance
) -> None:
    company.request(company.case(), 100)
    result = CliRunner().invoke(app, list(command))
    assert result.exit_code == 0, result.output


def test_key_rotation_needs_the_keys_role(
    roles: URL, company: Company, set_variables: SetVariables, field_key: str
) -> None:
    company.batch([100, 100])
    newest = new_key()
    set_variables(SEEDTRUST_FIELD_KEY=f"{newest},{field_key}", SEEDTRUST_DATABASE_URL=url_as(roles, APP))
    with pytest.raises(ProgrammingError, match="permission denied"):
        CliRunner().invoke(app, ["keys", "rotate"], catch_exceptions=False)
    set_variables(SEEDTRUST_DATABASE_URL=url_as(roles, KEYS))
    assert "2 of 2 account numbers" in CliRunner().invoke(app, ["keys", "rotate"]).output


FORBIDDEN = {
    APP: [
        "alter table public.users add column nickname text",
        "alter table public.ledger_entries disable trigger all",
        "alter table ops.transfer_attempts disable trigger all",
        "drop table ops.transfer_attempts",
        "drop trigger append_only on ops.transfer_attempts",
        "create table public.mine (id int)",
        "create table ops.mine (id int)",
        "create schema mine",
        "create trigger mine before insert on public.users for each row execute function ops.refuse_change()",
        "create index on public.ledger_entries (memo)",
        "set session_replication_role = replica",
        "set role seedtrust_ops_migrate",
        "set role seedtrust_platform",
        "create role mine",
        "alter role seedtrust_ops_app superuser",
        "copy public.users to program 'cat'",
        "copy public.users to '/tmp/users'",
        "select pg_read_file('/etc/passwd')",
        "select rolpassword from pg_authid",
        "update ops.transfer_attempts set outcome = 'completed'",
        "delete from ops.transfer_attempts",
        "truncate ops.transfer_attempts",
        "update ops.alert_notifications set channel = 'email'",
        "delete from ops.alert_notifications",
        "truncate ops.notifications",
        "delete from ops.notifications",
        "delete from ops.alerts",
        "delete from ops.batch_leases",
        "update ops.alembic_version set version_num = '0001'",
        "delete from public.ledger_entries",
        "update public.ledger_entries set amount_cents = 1",
        "truncate public.ledger_entries",
        "insert into public.ledger_entries (account_id, amount_cents, kind, posted_at) values (1, 1, 'fee', now())",
        "update public.accounts set minimum_balance_cents = 0",
        "delete from public.accounts",
        "update public.users set email = 'me@example.test'",
        "update public.users set role = 'admin'",
        "insert into public.users (email, full_name, role) values ('me', 'me', 'admin')",
        "delete from public.users",
        "update public.cases set close_on = null",
        "insert into public.case_parties values (1, 1, 'ip_rep')",
        "update public.disbursement_requests set amount_cents = 1",
        "update public.disbursement_requests set payee_id = 1",
        "insert into public.disbursement_requests (case_id, payee_id, amount_cents, category) values (1, 1, 1, 'x')",
        "update public.approval_rules set max_amount_cents = 1",
        "insert into public.approval_rules (name, max_amount_cents) values ('x', 1)",
        "insert into public.huntington_batches (status) values ('queued')",
        "update public.huntington_batches set priority = 1",
        "update public.huntington_transactions set amount_cents = 1",
        "update public.huntington_transactions set routing_number = '044000024'",
        "update public.huntington_transactions set account_number_encrypted = ''",
        "delete from public.huntington_transactions",
        "update public.report_requests set kind = 'case_ledger'",
        "delete from public.job_runs",
        "update public.errors set message = ''",
        "select * from payroll.salaries",
        "select * from public.password_resets",
    ],
    KEYS: [
        "select payee_name from public.huntington_transactions",
        "select * from public.users",
        "select * from ops.transfer_attempts",
        "update public.huntington_transactions set updated_at = now()",
        "update public.huntington_transactions set status = 'completed'",
        "insert into ops.switches (name) values ('x')",
        "select * from payroll.salaries",
    ],
    READ: [
        "select account_number_encrypted from public.huntington_transactions",
        "select * from public.huntington_transactions",
        "select routing_number from public.huntington_transactions",
        "select content from ops.notification_attachments",
        "set transaction read write; update public.users set is_on_site = true",
        "set transaction read write; insert into ops.switches (name) values ('x')",
        "set transaction read write; delete from ops.alerts",
        "set transaction read write; create table public.mine (id int)",
        "select * from payroll.salaries",
    ],
    DAGSTER: [
        "select * from public.users",
        "select * from ops.alerts",
        "create table public.mine (id int)",
        "create table ops.mine (id int)",
        "insert into ops.switches (name) values ('x')",
    ],
    MIGRATE: ["create role mine", "alter role seedtrust_ops_migrate superuser", "select * from payroll.salaries"],
}


def test_roles_cannot_do_forbidden_statements(connect_as: ConnectAs, company: Company, roles: URL) -> None:
    """Every statement is refused for lack of a privilege, not because it is otherwise invalid."""
    company.batch([100])
    engine = create_engine(roles)
    with engine.begin() as superuser:
        for statement in (
            "create schema payroll",
            "create table payroll.salaries (cents bigint)",
            "create table public.password_resets (token text)",
        ):
            superuser.execute(text(statement))
    allowed = []
    for role, statements in FORBIDDEN.items():
        connection = connect_as(role)
        for statement in statements:
            try:
                for part in statement.split(";"):
                    connection.execute(text(part))
                allowed.append((role, statement))
            except ProgrammingError as error:
                if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
                    allowed.append((role, f"{statement}: {error.orig}"))
            connection.rollback()
    engine.dispose()
    assert allowed == []


def test_read_role_sees_every_table_but_no_account_number(connect_as: ConnectAs, company: Company) -> None:
    company.batch([100])
    connection = connect_as(READ)
    hidden = {"account_number_encrypted", "routing_number", "content"}
    for table in (*PlatformTable.metadata.sorted_tables, *OpsTable.metadata.sorted_tables):
        shown = ", ".join(column.name for column in table.columns if column.name not in hidden)
        connection.execute(text(f"select {shown} from {table.schema}.{table.name}"))
    assert connection.scalar(text("show transaction_read_only")) == "on"


def test_extra_privileges_are_revoked_by_the_file(roles: URL, connect_as: ConnectAs) -> None:
    engine = create_engine(roles)
    before = read_privileges(roles)
    with engine.begin() as superuser:
        superuser.execute(text(f"grant all on all tables in schema public, ops to {APP}, {READ}, {KEYS}"))
        superuser.execute(text(f"grant update (email) on public.users to {READ}"))
        superuser.execute(text("grant select on ops.alerts to public"))
    assert read_privileges(roles) != before
    apply_roles(roles)
    assert read_privileges(roles) == before
    engine.dispose()


def read_privileges(url: URL) -> list[tuple[object, ...]]:
    """Return every table and column privilege of our roles and of PUBLIC."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "select grantee, table_schema, table_name, column_name, privilege_type"
                " from information_schema.column_privileges"
                " where table_schema in ('public', 'ops') and (grantee like 'seedtrust_ops_%' or grantee = 'PUBLIC')"
                " order by 1, 2, 3, 4, 5"
            )
        )
        found = [tuple(row) for row in rows]
    engine.dispose()
    return found


@pytest.mark.usefixtures("bank_environment")
def test_dagster_role_works_in_its_own_database(roles: URL, dagster_home: DagsterHome) -> None:
    with temporary_database(roles) as url:
        superuser = create_engine(url)
        with superuser.begin() as connection:
            connection.execute(text(f"alter database {url.database} owner to {DAGSTER}"))
        superuser.dispose()
        with open_instance(DagsterHome(dagster_home.folder, url.set(username=DAGSTER))) as instance:
            assert run("off_site_tracking", instance=instance).success
            assert instance.get_runs_count() == 1


def test_migrations_run_as_their_own_role(postgres_server: URL) -> None:
    with temporary_database(postgres_server) as url:
        create_platform_schema(url)
        assign_platform_owner(url)
        first = create_engine(url.set(username=PLATFORM_OWNER))
        migrate(first)
        first.dispose()
        apply_roles(url)
        # Drop ops, so that every migration runs again, with its indexes and triggers on platform tables.
        superuser = create_engine(url)
        with superuser.begin() as connection:
            connection.execute(text("drop schema ops cascade"))
        superuser.dispose()
        migrator = create_application_engine(url.set(username=MIGRATE))
        assert migrate(migrator) == [f"Migrated schema ops from revision none to {HEAD_REVISION}."]
        migrator.dispose()
        apply_roles(url)
        jobs = create_application_engine(url.set(username=APP))
        with jobs.connect() as connection:
            connection.execute(text("select count(*) from ops.alerts"))
        jobs.dispose()
