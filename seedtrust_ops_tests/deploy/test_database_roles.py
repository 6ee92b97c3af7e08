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
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.all_jobs import (
    LONG_TIMEOUTS,
    create_work_for_every_job,
    evaluate_every_automation,
    queue_another_batch,
    run_every_job,
    unexpected_failures,
)
from seedtrust_ops_tests.support.case_factory import CaseFactory
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


LEGACY_WORK = """
update huntington_batches set status = 'completed', started_at = now(), finished_at = now();
update huntington_transactions set status = 'completed', completed_at = now(), bank_transfer_id = 'legacy-' || id;
insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id)
    select a.id, -t.amount_cents, 'disbursement', t.id from huntington_transactions t
    join disbursement_requests r on r.id = t.disbursement_request_id join accounts a on a.case_id = r.case_id;
update accounts set balance_cents = balance_cents - (select sum(amount_cents) from huntington_transactions);
update disbursement_requests set status = 'paid', paid_at = now();
update disbursement_requests set status = 'approved', approved_at = now(), approved_by = 'auto:date', paid_at = null
    where id not in (select disbursement_request_id from huntington_transactions);
"""
"""The legacy systems have sent every transaction and approved every other request."""


@pytest.mark.usefixtures("app_role_environment")
def test_dry_runs_undo_legacy_work_as_the_jobs_role(
    company: Company, instance: dg.DagsterInstance, set_variables: SetVariables, refused_statements: list[str]
) -> None:
    case = company.case()
    batch_id = company.batch([100, 200], case=case)
    CaseFactory(company.sessions).request(CaseFactory(company.sessions).case())
    with company.sessions.begin() as session:
        for statement in LEGACY_WORK.strip().split(";\n"):
            session.execute(text(statement))
    balance_cents = company.balance_cents(case.account_id)
    set_variables(SEEDTRUST_SHADOW="1")
    assert process(batch_id, instance).success
    assert run("dr_auto_approval", instance=instance).success
    assert refused_statements == []
    with company.sessions() as session:
        decided = list(session.scalars(text("select decision from ops.shadow_decisions")))
    assert (decided.count("send"), decided.count("approve by auto:date")) == (2, 1)
    assert company.statuses(batch_id) == ["completed", "completed"]
    assert company.balance_cents(case.account_id) == balance_cents


@pytest.mark.usefixtures("app_role_environment")
@pytest.mark.parametrize(
    "command",
    [
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
        assert migrate(migrator)[0] == f"Migrated schema ops from revision none to {HEAD_REVISION}."
        migrator.dispose()
        apply_roles(url)
        jobs = create_application_engine(url.set(username=APP))
        with jobs.connect() as connection:
            connection.execute(text("select count(*) from ops.alerts"))
        jobs.dispose()
