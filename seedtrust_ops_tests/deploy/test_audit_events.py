"""ops.audit_events: what people did, recorded by triggers with the login that did it; commands of the operator role."""

from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.alerts.store import open_alert, record_findings
from seedtrust_ops.domain.transfers.auto_heal import heal
from seedtrust_ops.domain.transfers.batch_lifecycle import queue_batch
from seedtrust_ops.domain.transfers.evidence import record_sends
from seedtrust_ops.resources.huntington_client import open_huntington_bank
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.deploy.conftest import APP, KEYS, OPERATOR, create_login
from seedtrust_ops_tests.domain.transfers.transfer_worker import settings_for
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.key_rotation_helpers import new_key

ANA = "seedtrust_test_ana"
"""A person's own login, which inherits the operator role."""
EMAIL = "ana@seedtrust.test"
SETTLED_EVIDENCE = """
insert into ops.transfer_evidence (transaction_id, state, method, amount_cents, payee_name, routing_number,
    account_number_encrypted, account_number_last4, account_type, settled_as)
values (7, 'moved', 'ach', 100, 'Ana', '044000024', 'x', '1234', 'checking', 'completed')
"""
UNKNOWN_TRANSFER = """
insert into ops.unknown_transfers (bank_transfer_id, idempotency_key, reference, status, method, amount_cents,
    created_at, updated_at, problem)
values ('tr_1', 'x', 'x', 'completed', 'wire', 1, now(), now(), 'x')
"""


@pytest.fixture
def audited(roles: URL, company: Company, set_variables: SetVariables, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A company with an active and an inactive user, one open alert, and a command line that uses ANA's login."""
    create_login(roles, ANA, of=OPERATOR)
    factory = CaseFactory(company.sessions)
    factory.user("admin", email=EMAIL)
    factory.user("admin", email="gone@seedtrust.test", is_active=False)
    with company.sessions.begin() as session:
        open_alert(session, "amount_differs", "transaction 7", "CRITICAL", "100 cents, not 99.")
    log_in(roles, ANA, set_variables)
    monkeypatch.setenv("LOGNAME", "ana.os")
    return company


def log_in(roles: URL, login: str, set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=plain_url(roles.set(username=login)))


def seedtrust_ops(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def read_events(sessions: sessionmaker[Session]) -> list[tuple[Any, ...]]:
    with sessions() as session:
        columns = "actor, action, subject, reason, detail"
        return [tuple(row) for row in session.execute(text(f"select {columns} from ops.audit_events order by id"))]


def test_audit_names_login_person_action_and_reason(audited: Company) -> None:
    with audited.sessions() as session:
        alert = session.scalar(text("select id::text from ops.alerts"))
    batch_id = str(audited.batch([100], status="held"))
    for command in (
        ["transfers", "halt", "--reason", "The bank is down", "--as", EMAIL],
        ["transfers", "resume", "--reason", "It is back", "--as", EMAIL],
        ["alerts", "ack", alert, "--reason", "I ask the bank", "--as", EMAIL],
        ["alerts", "resolve", alert],
        ["transfers", "release", batch_id, "--reason", "It was not this batch", "--as", EMAIL],
    ):
        code, output = seedtrust_ops(*command)
        assert code == 0, output
    person = {"os_user": "ana.os", "as": EMAIL}
    subject = f"alert {alert}: amount_differs, transaction 7"
    assert read_events(audited.sessions) == [
        (ANA, "halt", "transfers_halted", "The bank is down", person),
        (ANA, "resume", "transfers_halted", "It is back", person),
        (ANA, "acknowledge", subject, "I ask the bank", person),
        (ANA, "resolve", subject, "", {"os_user": "ana.os"}),
        (ANA, "release", f"batch {batch_id}", "It was not this batch", person),
    ]
    assert audited.batch_row(int(batch_id)).status == "queued"


@pytest.mark.parametrize(
    ("statement", "action"),
    [
        ("insert into ops.switches (name, reason) values ('x', 'by hand')", "halt"),
        ("delete from ops.switches", "resume"),
        ("update ops.alerts set acknowledged_at = now()", "acknowledge"),
        ("update ops.alerts set resolved_at = now()", "resolve"),
        ("update ops.transfer_evidence set state = 'not_moved', changed_at = now()", "settle"),
        ("update ops.unknown_transfers set explained_at = now(), explained_by = 'Ana', explanation = 'x'", "explain"),
        ("update public.huntington_batches set status = 'queued', queued_at = now() where status = 'held'", "release"),
    ],
)
def test_audit_records_what_is_done_without_a_command(
    audited: Company, roles: URL, statement: str, action: str
) -> None:
    audited.batch([100], status="held")
    with audited.sessions.begin() as session:
        session.execute(text("insert into ops.switches (name) values ('transfers_halted')"))
        session.execute(text(SETTLED_EVIDENCE))
        session.execute(text(UNKNOWN_TRANSFER))
    before = len(read_events(audited.sessions))
    engine = create_engine(roles.set(username=ANA))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
    (event,) = read_events(audited.sessions)[before:]
    assert (event[:2], event[4]) == ((ANA, action), {})


def test_audit_has_one_event_per_key_rotation(
    audited: Company, roles: URL, set_variables: SetVariables, field_key: str
) -> None:
    audited.batch([100] * 1_200)
    log_in(roles, KEYS, set_variables)
    keys = field_key
    for _ in range(2):
        keys = f"{new_key()},{keys}"
        set_variables(SEEDTRUST_FIELD_KEY=keys)
        code, output = seedtrust_ops("keys", "rotate", "--as", EMAIL)
        assert code == 0, output
    events = read_events(audited.sessions)
    assert [event[:3] for event in events] == [(KEYS, "key rotation", "account numbers")] * 2
    assert [event[4]["as"] for event in events] == [EMAIL] * 2
    engine = create_engine(roles.set(username=KEYS))
    for table in ("public.huntington_transactions", "ops.transfer_evidence"):
        with engine.begin() as connection:
            connection.execute(text(f"update {table} set account_number_encrypted = 'x'"))
    engine.dispose()
    assert read_events(audited.sessions)[2:] == [(KEYS, "key rotation", "account numbers", "", {})] * 2


def test_audit_leaves_out_what_jobs_and_applications_do(audited: Company, roles: URL) -> None:
    engine = create_engine(roles.set(username=APP))
    jobs = sessionmaker(engine)
    with jobs.begin() as session:
        open_alert(session, "reports_waiting", "report requests", "HIGH", "3 wait.")
        session.execute(text("update ops.alerts set last_found_at = now() - interval '1 hour' where severity = 'HIGH'"))
        assert record_findings(session, rule="reports_waiting", findings=[], quiet_seconds=60) == (0, 1)
    engine.dispose()
    held = audited.batch([100], status="held")
    with audited.sessions.begin() as session:
        queue_batch(session, held)
        session.execute(text("update public.huntington_transactions set account_number_encrypted = 'x'"))
    assert read_events(audited.sessions) == []


def test_operator_explains_and_books_a_transfer_by_command(
    bank_environment: dict[str, str], audited: Company, bank: BankProcess
) -> None:
    case = audited.case(balance_cents=9_000)
    request_id = audited.request(case, 5_000)
    bank_id, other, third = (bank.control.insert_transfer(f"invoice {one}", 5_000)["id"] for one in (1, 2, 3))
    heal(
        audited.sessions,
        lambda: open_huntington_bank(settings_for(bank)),
        unknown_grace_seconds=0,
        was_canceled_by_person=lambda _run_id: False,
    )
    code, output = seedtrust_ops("transfers", "explain")
    assert code == 0
    assert [word for word in output.split() if word.startswith("tr_")] == sorted([bank_id, other, third])
    for arguments in ([bank_id], [bank_id, other, "--reason", "x", "--request", "1"]):
        assert seedtrust_ops("transfers", "explain", *arguments)[0] == 2
    for arguments, summary in (
        ([bank_id, "--request", str(request_id)], f"booked as the payment of disbursement request {request_id}"),
        (["tr_nobody", other, third], f"Bank transfer {other} ($50.00, completed) is explained."),
    ):
        code, output = seedtrust_ops("transfers", "explain", *arguments, "--reason", "It was Bo", "--as", EMAIL)
        assert code == ("tr_nobody" in arguments), output
        assert summary in output
    assert seedtrust_ops("transfers", "explain") == (0, "Everything that the bank has reported is explained.")
    assert (audited.balance_cents(case.account_id), audited.request_status(request_id)) == (4_000, "paid")
    assert [rule for rule, _ in audited.open_alerts()] == ["amount_differs"]
    explained = [event for event in read_events(audited.sessions) if event[1] == "explain"]
    person = {"os_user": "ana.os", "as": EMAIL}
    assert explained == [
        (ANA, "explain", f"bank transfer {bank_id}: request {request_id}", "It was Bo", person),
        (ANA, "explain", f"bank transfer {other}", "It was Bo", person),
        (ANA, "explain", f"bank transfer {third}", "It was Bo", person),
    ]


@pytest.mark.parametrize("email", ["nobody@seedtrust.test", "gone@seedtrust.test"])
@pytest.mark.parametrize(
    "command",
    [
        ("halt", "--reason", "x"),
        ("resume",),
        ("release", "{batch}"),
        ("settle", "{transaction}", "--as-status", "failed", "--reason", "x"),
        ("explain", "tr_1", "--reason", "x"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("bank_environment")
def test_operator_must_be_an_active_user(
    audited: Company, roles: URL, set_variables: SetVariables, email: str, command: tuple[str, ...]
) -> None:
    log_in(roles, ANA, set_variables)
    with audited.sessions.begin() as session:
        session.execute(text("insert into ops.switches (name) values ('another')"))
    batch_id = audited.batch([100], status="held")
    (transaction,) = audited.transactions(batch_id)
    with audited.sessions.begin() as session:
        record_sends(session, [transaction.id])
    before = read_events(audited.sessions)
    words = (word.format(batch=batch_id, transaction=transaction.id) for word in command)
    code, output = seedtrust_ops("transfers", *words, "--as", email)
    assert (code, output.startswith(f"No active user has the email address {email}.")) == (1, True), output
    assert read_events(audited.sessions) == before
    assert (audited.batch_row(batch_id).status, audited.statuses(batch_id)) == ("held", ["pending"])
    with audited.sessions() as session:
        assert session.scalars(text("select name from ops.switches")).all() == ["another"]


@pytest.mark.parametrize("command", [("halt", "--reason", "x"), ("resume",), ("release", "{batch}")], ids=" ".join)
def test_jobs_role_cannot_halt_resume_or_release(
    audited: Company, roles: URL, set_variables: SetVariables, command: tuple[str, ...]
) -> None:
    with audited.sessions.begin() as session:
        session.execute(text("insert into ops.switches (name) values ('another')"))
    batch_id = audited.batch([100], status="held")
    log_in(roles, APP, set_variables)
    assert seedtrust_ops("transfers", *(word.format(batch=batch_id) for word in command)) == (
        1,
        f"The database login {APP} may not do this. Nothing was changed. Set SEEDTRUST_DATABASE_URL to a login that is "
        "a member of seedtrust_ops_operator.",
    )


@pytest.mark.parametrize(
    "command", [("alerts",), ("status",), ("notifications", "retry"), ("rules", "explain", "1")], ids=" ".join
)
@pytest.mark.usefixtures("bank_environment")
def test_operator_role_runs_the_commands_of_on_call(
    audited: Company, command: tuple[str, ...], instance: object
) -> None:
    audited.request(audited.case(), 100)
    code, output = seedtrust_ops(*command)
    assert code == 0, output
