"""`migrate` brings schema ops to the newest revision, also concurrently, or names what is missing and changes nothing.

It never changes the platform's columns.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.domain.alert_notifications.digest import record_delivered_digests
from seedtrust_ops.domain.alert_notifications.notifier import enqueue_owed, record_delivered
from seedtrust_ops.domain.alerts.store import acknowledge, record_findings
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.domain.outbox.event_sink import send_due_events
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.errors import SchemaOutOfDate
from seedtrust_ops.migrations.migrator import HEAD_REVISION, HERE, KNOWN_REVISIONS, current_revision, migrate
from seedtrust_ops.tables import Alert, AlertNotification, Notification, OutgoingEvent
from seedtrust_ops_tests.support.waiters import wait_until

MIGRATION_LOCK = 7_305_401
MIGRATE = (
    "import sys; from sqlalchemy import create_engine; from seedtrust_ops.migrations.migrator import migrate;"
    "print(migrate(create_engine(sys.argv[1]))[0])"
)


def columns_of_public(engine: Engine) -> list[tuple[object, ...]]:
    """All columns and constraints of the platform's tables."""
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "select * from information_schema.columns where table_schema = 'public'"
                " order by table_name, ordinal_position"
            )
        )
        constraints = connection.execute(
            text(
                # Type 't' is a trigger that can be deferred, which PostgreSQL lists here.
                "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
                " where connamespace = 'public'::regnamespace and contype <> 't' order by 1, 2"
            )
        )
        return [tuple(row) for row in [*columns, *constraints]]


def has_ops(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.scalar(text("select to_regnamespace('ops')")) is not None


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(HERE))
    return config


def migrate_to(engine: Engine, revision: str) -> None:
    """Migrate schema ops to an older revision, as the code of that time did."""
    config = alembic_config()
    with engine.begin() as connection:
        connection.execute(text("create schema if not exists ops"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_migrate_is_idempotent(platform_database: Engine) -> None:
    first = migrate(platform_database)
    second = migrate(platform_database)
    assert first[0] == f"Migrated schema ops from revision none to {HEAD_REVISION}."
    assert second == [f"Schema ops is up to date (revision {HEAD_REVISION})."]
    with platform_database.connect() as connection:
        assert current_revision(connection) == HEAD_REVISION


def test_migrate_records_the_cutover_once_and_not_in_shadow(platform_database: Engine) -> None:
    moments = "select at from ops.cutovers where job = 'process_huntington_batch'"
    with platform_database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        recorded = []
        for legacy_worker_runs in (True, False, False, True, False):
            messages = migrate(platform_database, legacy_worker_runs=legacy_worker_runs)[1:]
            recorded.append((connection.scalar(text(moments)), messages))
    first, second, third, back, again = recorded
    assert [moment is not None for moment, _ in recorded] == [False, True, True, False, True]
    assert second[0] == third[0] != again[0]
    assert [bool(messages) for _, messages in (first, second, third, back, again)] == [False, True, False, True, True]
    assert "as the cutover of process_huntington_batch" in second[1][0]


def test_platform_tables_are_created_only_on_request_and_once(empty_database: Engine) -> None:
    with pytest.raises(SchemaOutOfDate, match="migrate --platform"):
        migrate(empty_database)
    assert not has_ops(empty_database)
    assert migrate(empty_database, create_platform=True)[0] == "Created the platform's tables in schema public."
    assert len(migrate(empty_database, create_platform=True)) == 1


def test_incomplete_platform_is_reported_and_not_completed(platform_database: Engine) -> None:
    execute(platform_database, "drop table huntington_batches cascade")
    with pytest.raises(SchemaOutOfDate, match=r"huntington_batches\.id"):
        migrate(platform_database, create_platform=True)


@pytest.mark.usefixtures("child_processes")
def test_concurrent_migrations_run_once(platform_database: Engine) -> None:
    with platform_database.connect() as gate:
        gate.execute(text(f"select pg_advisory_lock({MIGRATION_LOCK})"))
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", MIGRATE, platform_database.url.render_as_string(hide_password=False)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        waiting = text(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted and database ="
            " (select oid from pg_database where datname = current_database())"
        )
        wait_until(lambda: gate.scalar(waiting) == 2, what="both to wait at the lock")
        gate.execute(text(f"select pg_advisory_unlock({MIGRATION_LOCK})"))
        gate.commit()
        outputs = sorted(process.communicate(timeout=120)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [
        f"Migrated schema ops from revision none to {HEAD_REVISION}.",
        f"Schema ops is up to date (revision {HEAD_REVISION}).",
    ]


def test_later_migration_waits_for_the_one_in_progress(platform_database: Engine) -> None:
    migrate(platform_database)
    impatient = create_engine(platform_database.url, connect_args={"options": "-c lock_timeout=300ms"})
    with platform_database.connect() as other:
        other.execute(text("lock table ops.alembic_version in share row exclusive mode"))
        assert other.scalar(text("select version_num from ops.alembic_version")) == HEAD_REVISION
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate(impatient)
    assert migrate(impatient) == [f"Schema ops is up to date (revision {HEAD_REVISION})."]
    impatient.dispose()


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        (["alter table users drop column is_on_site"], ["users.is_on_site"]),
        (
            ["alter table cases drop column close_on", "alter table accounts drop column minimum_balance_cents"],
            ["cases.close_on", "accounts.minimum_balance_cents"],
        ),
        (["drop table viewing_payments"], ["viewing_payments.user_id", "viewing_payments.since"]),
        (["alter table errors rename column message to text"], ["errors.message"]),
    ],
)
def test_missing_platform_columns_are_named_and_nothing_changes(
    platform_database: Engine, statements: list[str], missing: list[str]
) -> None:
    execute(platform_database, *statements)
    before = columns_of_public(platform_database)
    with pytest.raises(SchemaOutOfDate) as raised:
        migrate(platform_database)
    assert all(name in str(raised.value) for name in missing)
    assert "users.email" not in str(raised.value)
    assert columns_of_public(platform_database) == before
    assert not has_ops(platform_database)


def test_additional_platform_columns_and_tables_are_accepted(platform_database: Engine) -> None:
    execute(platform_database, "alter table users add column nickname text", "create table consents (id bigint)")
    migrate(platform_database)
    assert has_ops(platform_database)


def test_double_ledger_postings_are_named_and_nothing_changes(platform_database: Engine) -> None:
    execute(
        platform_database,
        "insert into cases (case_number) values ('CASE-1')",
        "insert into accounts (case_id) values (1)",
        "insert into huntington_batches default values",
        "insert into huntington_transactions (batch_id, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " select 1, 'ach', 100, 'Dana', '044000024', 'x', '1234', 'checking' from generate_series(1, 4)",
        "insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id) values"
        " (1, -100, 'disbursement', 1), (1, 100, 'reversal', 1), (1, -100, 'fee', 1), (1, -100, 'fee', 1),"
        " (1, -100, 'disbursement', 2), (1, -100, 'disbursement', 2),"
        " (1, 100, 'reversal', 3), (1, 100, 'reversal', 3), (1, 100, 'deposit', null), (1, 100, 'deposit', null)",
    )
    with pytest.raises(SchemaOutOfDate, match=r"Huntington transactions: 2, 3\. Reverse"):
        migrate(platform_database)
    assert not has_ops(platform_database)
    execute(platform_database, "delete from ledger_entries where id in (6, 8)")
    migrate(platform_database)


def test_migration_leaves_platform_columns_and_constraints_unchanged(platform_database: Engine) -> None:
    before = columns_of_public(platform_database)
    migrate(platform_database)
    migrate(platform_database)
    assert columns_of_public(platform_database) == before


def test_newer_schema_is_reported_and_left_unchanged(platform_database: Engine) -> None:
    migrate(platform_database)
    execute(platform_database, "update ops.alembic_version set version_num = '9999'")
    with pytest.raises(SchemaOutOfDate, match="revision 9999, which is unknown to this code"):
        migrate(platform_database)


def test_known_revisions_match_the_versions_folder() -> None:
    revisions = [revision.revision for revision in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
    assert tuple(reversed(revisions)) == KNOWN_REVISIONS


OLD_ROWS = (
    "insert into ops.notifications (dedupe_key, kind, recipient_email, subject, variables, status, attempts,"
    " created_at, sent_at, next_attempt_at, attempted_at, claim, trouble) values"
    " ('report:1:1', 'case-close', 'a@example.test', '',"
    '  \'{"case_number"\\: "A", "close_on"\\: "2026-03-03", "late"\\: false}\', \'queued\', 2,'
    "  now() - interval '1 hour', null, now() - interval '1 minute', now() - interval '9 minutes', 'claim-1',"
    "  'timeout'),"
    " ('report:2:1', 'report', 'b@example.test', 'Your report', '{}', 'sent', 1,"
    "  now() - interval '2 hours', now() - interval '1 hour', now(), now() - interval '1 hour', 'claim-2', null),"
    " ('report:3:1', 'report', 'c@example.test', 'Your report', '{}', 'failed', 5,"
    "  now() - interval '3 hours', null, now(), now() - interval '2 hours', null, 'mailbox unknown')",
    "insert into ops.alerts (rule, subject, severity, opened_at, resolved_at, detail, told_at, told_severity,"
    " resolution_told_at, last_found_at, acknowledged_at, acknowledged_by) values"
    " ('batch_stuck', 'batch 7', 'HIGH', now() - interval '1 hour', null, 'Batch 7 is stuck.',"
    "  now() - interval '59 minutes', 'HIGH', null, now() - interval '10 minutes', null, null),"
    " ('reports_waiting', 'report requests', 'MEDIUM', now() - interval '1 hour', null, '3 wait.',"
    "  null, null, null, now(), null, null),"
    " ('error_spike', 'all jobs', 'CRITICAL', now() - interval '2 days', now() - interval '1 day', '12 failed runs.',"
    "  now() - interval '47 hours', 'CRITICAL', now() - interval '1 day', now() - interval '25 hours',"
    "  now() - interval '46 hours', 'Maria')",
    "insert into ops.outgoing_events (destination, dedupe_key, body, attempts, created_at, next_attempt_at, sent_at,"
    " given_up_at, trouble) values"
    " ('posthog', 'event:1', '{\"event\"\\: \"alert_opened\"}', 1, now() - interval '1 hour',"
    "  now() - interval '1 minute', null, null, 'timeout'),"
    " ('posthog', 'event:2', '{}', 1, now() - interval '1 hour', now(), now() - interval '30 minutes', null, null),"
    " ('posthog', 'event:3', '{}', 9, now() - interval '2 days', now(), null, now() - interval '1 day', 'HTTP 400')",
)
MOVED_COLUMNS = {"told_at", "told_severity", "resolution_told_at", "given_up_at"}
"""Columns of `alerts` whose values became rows of `alert_notifications`, and one that became a status."""
ADDED_COLUMNS = {
    "alerts": {"occurrences", "acknowledged_until", "acknowledged_severity"},
    "outgoing_events": {"status", "attempted_at", "claim_token"},
}
RENAMED_COLUMNS: dict[str, dict[str, str]] = {
    "notifications": {"claim": "claim_token", "trouble": "last_error"},
    "alerts": {},
    "outgoing_events": {"trouble": "last_error"},
}


def read_columns(engine: Engine, table: str) -> dict[str, list[Any]]:
    """All values of a table of schema ops by column, in the order of the rows' IDs."""
    with engine.connect() as connection:
        rows = connection.execute(text(f"select * from ops.{table} order by id")).mappings().all()
    return {column: [row[column] for row in rows] for column in rows[0]}


class RecordingTransport:
    """A mail server that accepts every email."""

    sender = "escrow@seedtrust.example"

    def __init__(self) -> None:
        self.recipients: list[str] = []

    def send(self, message: Message) -> None:
        self.recipients.append(str(message["To"]))


class RecordingSink:
    """A destination that accepts every event."""

    def __init__(self) -> None:
        self.dedupe_keys: list[str] = []

    def send(self, dedupe_key: str, body: object, at: object) -> None:
        self.dedupe_keys.append(dedupe_key)


def test_rows_of_revision_0007_keep_their_values_and_stay_usable(platform_database: Engine) -> None:
    migrate_to(platform_database, "0007")
    execute(platform_database, *OLD_ROWS)
    before = {table: read_columns(platform_database, table) for table in RENAMED_COLUMNS}

    assert migrate(platform_database)[0] == f"Migrated schema ops from revision 0007 to {HEAD_REVISION}."

    for table, new_names in RENAMED_COLUMNS.items():
        kept = {column: values for column, values in before[table].items() if column not in MOVED_COLUMNS}
        renamed = {new_names.get(column, column): values for column, values in kept.items()}
        after = read_columns(platform_database, table)
        assert {column: after[column] for column in renamed} == renamed, table
        assert after.keys() - renamed.keys() == ADDED_COLUMNS.get(table, set())
    told, resolution_told = before["alerts"]["told_at"], before["alerts"]["resolution_told_at"]
    with platform_database.connect() as connection:
        moved = connection.execute(
            text("select alert_id, channel, notification, severity, notified_at from ops.alert_notifications")
        )
        assert sorted(tuple(row) for row in moved) == sorted(
            (alert_id, channel, notification, severity, at)
            for alert_id, notification, severity, at in (
                (1, "opened", "HIGH", told[0]),
                (3, "opened", "CRITICAL", told[2]),
                (3, "resolved", "CRITICAL", resolution_told[2]),
            )
            for channel in ("email", "posthog", "internal_api")
        )
    sessions = sessionmaker(platform_database)
    transport = RecordingTransport()
    assert send_due_emails(sessions, transport, EmailRenderer(ZoneInfo("America/New_York"))).sent == 1
    assert transport.recipients == ["a@example.test"]
    with sessions.begin() as session:
        assert record_findings(session, rule="batch_stuck", findings=[], quiet_seconds=60) == (0, 1)
        (waiting,) = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
        assert acknowledge(session, waiting.id, "Tom").acknowledged_by == "Tom"
    sink = RecordingSink()
    report = send_due_events(sessions, Destination.POSTHOG, sink, max_seconds=60)
    assert (report.sent, report.failed, sink.dedupe_keys) == (1, 0, ["event:1"])
    with sessions() as session:
        notifications = session.execute(
            select(Notification.status, Notification.attempts, Notification.last_error).order_by(Notification.id)
        )
        assert [tuple(row) for row in notifications] == [
            ("sent", 3, None),
            ("sent", 1, None),
            ("failed", 5, "mailbox unknown"),
        ]
        alerts = session.scalars(select(Alert).order_by(Alert.id)).all()
        assert [alert.resolved_at is not None for alert in alerts] == [True, False, True]
        events = session.execute(select(OutgoingEvent.status, OutgoingEvent.last_error).order_by(OutgoingEvent.id))
        assert [tuple(row) for row in events] == [("sent", None), ("sent", None), ("failed", "HTTP 400")]


ALERTS_OF_0008 = (
    # Emailed; queued for email; failed by email; resolved while its email was queued.
    "insert into ops.alerts (rule, subject, severity, detail, resolved_at, notified_at, notified_severity,"
    " resolution_notified_at)"
    " select 'batch_stuck', 'batch ' || n, 'HIGH', 'It is stuck.', case n when 4 then now() end, now(), 'HIGH',"
    " case n when 4 then now() end from generate_series(1, 4) n",
    "insert into ops.notifications (dedupe_key, kind, recipient_email, subject, status, sent_at, attempted_at,"
    " variables)"
    " select 'alert\\:' || n || '\\:' || name || '\\:a@b.test', 'alert-' || name, 'a@b.test', '', status,"
    " case status when 'sent' then now() end, now() - interval '2 hours',"
    " jsonb_build_object('rule', 'batch_stuck', 'subject', 'batch ' || n, 'severity', 'HIGH', 'detail', 'It is stuck.',"
    " 'opened_at', now(), 'resolved_at', now(), 'has_risen', false)"
    " from (values (1, 'opened', 'sent'), (2, 'opened', 'queued'), (3, 'opened', 'failed'), (4, 'opened', 'queued'),"
    " (4, 'resolved', 'queued')) as email (n, name, status)",
    "insert into ops.notifications (dedupe_key, kind, recipient_email, subject, status, sent_at, variables)"
    " select 'alert-digest\\:' || current_date || '\\:a@b.test', 'alert-digest', 'a@b.test', '', 'sent', now(),"
    " jsonb_build_object('opened', jsonb_build_array(jsonb_build_object('rule', 'error_spike')),"
    " 'resolved', jsonb_build_array())",
)


def test_alert_emails_of_revision_0008_are_neither_lost_nor_repeated(platform_database: Engine) -> None:
    migrate_to(platform_database, "0008")
    execute(platform_database, *ALERTS_OF_0008)
    migrate(platform_database)
    sessions = sessionmaker(platform_database)
    transport = RecordingTransport()
    sent = []
    for _ in range(3):
        with sessions.begin() as session:
            enqueue_owed(session, emails=["a@b.test"], posthog=False, now=datetime.now(UTC))
        sent.append(send_due_emails(sessions, transport, EmailRenderer(ZoneInfo("America/New_York"))).sent)
        with sessions.begin() as session:
            record_delivered(session, emails=["a@b.test"], now=datetime.now(UTC))
            record_delivered_digests(session, emails=["a@b.test"], now=datetime.now(UTC))
    # The two queued ones, the one that failed, which is due again, and the resolution.
    assert sent == [4, 0, 0]
    with sessions() as session:
        delivered = session.execute(
            select(AlertNotification.alert_id, AlertNotification.notification).where(
                AlertNotification.channel == "email"
            )
        )
        assert sorted(map(tuple, delivered)) == [
            (1, "opened"),
            (2, "opened"),
            (3, "opened"),
            (4, "opened"),
            (4, "resolved"),
        ]


@pytest.fixture
def migrated_database(database_url: URL) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


APPEND_ONLY = {
    "transfer_attempts": (
        "insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, started_at)"
        " values (1, 'seedtrust-transaction-1', 1, 'started', now())",
        "outcome = 'completed'",
    ),
    "alert_notifications": (
        "with alert as (insert into ops.alerts (rule, subject, severity) values ('r', 's', 'HIGH') returning id)"
        " insert into ops.alert_notifications (alert_id, channel, notification, severity)"
        " select id, 'email', 'opened', 'HIGH' from alert",
        "channel = 'posthog'",
    ),
    "audit_events": ("insert into ops.switches (name) values ('transfers_halted')", "actor = 'somebody else'"),
}


def test_migration_replaces_the_links_of_reports_with_their_keys(platform_database: Engine) -> None:
    """Links that were signed when reports were generated are removed from sent emails, too."""
    migrate_to(platform_database, "0010")
    link = (
        "https://bucket.s3.amazonaws.com/reports/case_ledger/7/0a1b/case-ledger-2026-03-03.csv?X-Amz-Signature=5ec4e7"
    )
    with platform_database.begin() as connection:
        connection.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_email, subject, status, variables) values"
                " ('1', 'report', 'a', '', 'sent',"
                "  jsonb_build_object('rows', 1, 'link', cast(:link as text), 'link_expires_at', '2026')),"
                " ('2', 'report', 'a', '', 'queued',"
                "  jsonb_build_object('rows', 2, 'link', null, 'link_expires_at', null))"
            ),
            {"link": link},
        )
    migrate(platform_database)
    stored_file = {
        "key": "reports/case_ledger/7/0a1b/case-ledger-2026-03-03.csv",
        "filename": "case-ledger-2026-03-03.csv",
    }
    assert read_columns(platform_database, "notifications")["variables"] == [
        {"rows": 1, "stored_file": stored_file},
        {"rows": 2, "stored_file": None},
    ]


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_record_tables_are_append_only(migrated_database: Engine, table: str) -> None:
    insert_row, change = APPEND_ONLY[table]
    execute(migrated_database, insert_row)
    before = read_columns(migrated_database, table)
    for statement in (
        f"update ops.{table} set {change}",
        f"update ops.{table} set {change} where id > 0",
        f"delete from ops.{table}",
        f"truncate ops.{table}",
    ):
        with pytest.raises(DBAPIError, match=rf"ops\.{table} is append-only"):
            execute(migrated_database, statement)
    assert read_columns(migrated_database, table) == before


def test_another_amount_that_was_posted_before_is_kept_as_the_banks(platform_database: Engine) -> None:
    migrate_to(platform_database, "0018")
    execute(
        platform_database,
        "insert into cases (id, case_number) values (1, 'A')",
        "insert into accounts (id, case_id) values (1, 1)",
        "insert into huntington_batches (id) values (1)",
        "insert into huntington_transactions (id, batch_id, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " select id, 1, 'ach', 500, '', '', '', '', 'checking' from generate_series(1, 2) as id",
        "insert into ops.transfer_evidence (transaction_id, state, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " select id, 'moved', method, amount_cents, '', '', '', '', 'checking' from huntington_transactions",
        "insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id) values"
        " (1, -500, 'disbursement', 1), (1, -700, 'disbursement', 2)",
        "insert into ops.alerts (rule, subject, severity) values ('amount_differs', 'transaction 2', 'CRITICAL')",
    )
    migrate(platform_database)
    with platform_database.connect() as connection:
        kept = connection.scalars(
            text("select bank_amount_cents from ops.transfer_evidence order by transaction_id")
        ).all()
    assert kept == [None, 700]


def test_notification_state_survives_a_downgrade_and_an_upgrade(migrated_database: Engine) -> None:
    execute(migrated_database, APPEND_ONLY["alert_notifications"][0])
    before = read_columns(migrated_database, "alert_notifications")
    with migrated_database.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
    assert read_columns(migrated_database, "alerts")["notified_severity"] == ["HIGH"]
    migrate(migrated_database)
    after = read_columns(migrated_database, "alert_notifications")
    # The columns did not know the channel.
    assert set(after["channel"]) == {"email", "posthog", "internal_api"}
    assert set(after["notified_at"]) == set(before["notified_at"])


ALERT = "insert into ops.alerts (rule, subject, severity, resolved_at) values ('{}', '{}', 'HIGH', {})"
BALANCE = (
    "insert into ops.balance_alerts (account_id, balance_cents, minimum_balance_cents, shortfall_cents, resolved_at)"
    " values ({}, 1, 2, 1, {})"
)


@pytest.mark.parametrize(
    ("insert_row", "same", "others"),
    [
        (ALERT.format, ("rule", "job a"), [("rule", "job b"), ("other rule", "job a")]),
        (BALANCE.format, (1,), [(2,)]),
    ],
    ids=["alerts", "balance_alerts"],
)
def test_alerts_allow_one_unresolved_row_per_subject(
    migrated_database: Engine,
    insert_row: Callable[..., str],
    same: tuple[object, ...],
    others: list[tuple[object, ...]],
) -> None:
    execute(migrated_database, insert_row(*same, "now()"), insert_row(*same, "now()"), insert_row(*same, "null"))
    execute(migrated_database, *(insert_row(*other, "null") for other in others))
    with pytest.raises(IntegrityError):
        execute(migrated_database, insert_row(*same, "null"))


@pytest.mark.parametrize("kind", ["disbursement", "reversal"])
def test_ledger_guard_prevents_double_postings(migrated_database: Engine, kind: str) -> None:
    execute(
        migrated_database,
        "insert into cases (case_number) values ('CASE-1')",
        "insert into accounts (case_id) values (1)",
        "insert into huntington_batches default values",
        "insert into huntington_transactions (id, batch_id, method, amount_cents, payee_name, routing_number,"
        " account_number_encrypted, account_number_last4, account_type)"
        " values (1, 1, 'ach', 100, 'Dana', '044000024', 'x', '1234', 'checking')",
    )
    entry = (
        "insert into ledger_entries (account_id, amount_cents, kind, huntington_transaction_id)"
        f" values (1, 100, '{kind}', 1)"
    )
    execute(migrated_database, entry)
    with pytest.raises(IntegrityError, match=f"ledger_entries_one_{kind}"):
        execute(migrated_database, entry)


def test_notification_dedupe_key_is_unique(migrated_database: Engine) -> None:
    notification = (
        "insert into ops.notifications (dedupe_key, kind, recipient_email, subject)"
        " values ('report:1:1', 'report', 'a@example.test', 'Your report')"
    )
    execute(migrated_database, notification)
    with pytest.raises(IntegrityError):
        execute(migrated_database, notification)


HAND_SET_COMPLETED = """
insert into users (email, full_name, role) values ('a@example.test', 'Ana', 'surrogate');
insert into cases (case_number) values ('C-1');
insert into huntington_batches (status) values ('completed');
insert into huntington_transactions (batch_id, method, amount_cents, payee_name, routing_number,
    account_number_encrypted, account_number_last4, account_type, status, bank_transfer_id)
select 1, 'ach', 100, 'Ana', '044000024', 'x', '1234', 'checking', 'completed', 'tr_' || number
from generate_series(1, 2) as number;
insert into ops.transfer_attempts (transaction_id, idempotency_key, attempt, outcome, bank_transfer_id, started_at)
values (1, 'key-1', 1, 'started', null, now()), (1, 'key-1', 1, 'accepted', 'tr_1', now()),
       (2, 'key-2', 1, 'started', null, now()), (2, 'key-2', 1, 'completed', 'tr_2', now())
"""


def test_transfer_completed_by_hand_before_revision_0012_is_in_flight(platform_database: Engine) -> None:
    migrate_to(platform_database, "0011")
    execute(platform_database, *HAND_SET_COMPLETED.split(";"))
    migrate(platform_database)
    with platform_database.connect() as connection:
        rows = connection.execute(
            text("select state, bank_status from ops.transfer_evidence order by transaction_id")
        ).all()
    assert [tuple(row) for row in rows] == [("in_flight", None), ("moved", "completed")]
