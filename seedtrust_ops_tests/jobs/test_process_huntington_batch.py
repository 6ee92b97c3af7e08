"""`process_huntington_batch` as people launch it: what it sends, and how it fails if it cannot or must not send.

Every failure is one message that says what is wrong and what to do; it sends nothing and loses nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.engine import URL

from seedtrust_ops.domain.transfers import funding
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.domain.transfers.settlement_deadlines import settles_on
from seedtrust_ops.formatting import format_short_date
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import TransferEvidence
from seedtrust_ops_tests.jobs.job_runner import PROCESS, process, run
from seedtrust_ops_tests.support.databases import create_platform_schema, plain_url, temporary_database
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("bank_environment", "no_retry_delays")


def sent_keys(company: Company, bank: BankProcess, batch_id: int) -> list[str]:
    """Return the batch's idempotency keys for which the bank has a transfer."""
    keys = {idempotency_key(transaction.id) for transaction in company.transactions(batch_id)}
    return [
        transfer["idempotency_key"]
        for transfer in bank.control.ledger()["transfers"]
        if transfer["idempotency_key"] in keys
    ]


def assert_is_readable(message: str) -> None:
    assert "\n" not in message
    assert "Traceback" not in message
    assert "sqlalche.me" not in message
    assert message.endswith(".")


def test_queued_batch_is_sent_and_shown_in_metadata(company: Company, bank: BankProcess) -> None:
    batch_id = company.batch([30_000, 12_345])
    result = process(batch_id)
    assert result.success
    assert result.attempts == 1
    assert result.returned == {"batch_id": batch_id, "status": "completed", "held_by": None, "counts": {"completed": 2}}
    assert company.batch_row(batch_id).status == "completed"
    assert len(sent_keys(company, bank, batch_id)) == 2
    shown = {name: str(value.value) for name, value in result.metadata.items()}
    assert shown["Status"] == "completed"
    assert "$423.45" in shown["By status"]
    table = shown["Transactions (first 2 of 2)"]
    for transaction in company.transactions(batch_id):
        assert f"…{transaction.account_number_last4}" in table
        assert company.cipher.decrypt(transaction.account_number_encrypted) not in table


def test_day_by_which_an_ach_settles_is_shown_in_metadata(company: Company) -> None:
    case = company.case()
    batch_id = company.batch([700], case=case)
    ach = company.transaction(batch_id, company.request(case, 500), 500, method="ach")
    metadata = process(batch_id).metadata
    table = next(str(value.value) for name, value in metadata.items() if name.startswith("Transactions"))
    columns = [cell.strip() for cell in table.splitlines()[0].split("|")]
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in row.split("|")] for row in table.splitlines())}
    with company.sessions() as session:
        accepted_at = session.get_one(TransferEvidence, ach).bank_created_at
    assert accepted_at is not None
    shown = {number: cells[columns.index("Settles by")] for number, cells in rows.items() if number.isdigit()}
    assert shown.pop(str(ach)) == format_short_date(settles_on("ach", accepted_at))
    assert list(shown.values()) == [""]


def test_user_text_cannot_become_markup_in_metadata(company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    company.transaction(batch_id, company.request(case, 100), 100, payee_name="a|b <script>[x](http://y)")
    table = next(str(value.value) for name, value in process(batch_id).metadata.items() if name.startswith("Transac"))
    row = table.splitlines()[2]
    assert row.count("|") == 10
    assert "<script>" not in row
    assert "](" not in row


def test_batch_held_by_another_run_is_left_alone_and_the_run_succeeds(company: Company, bank: BankProcess) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 60)
    result = process(batch_id)
    assert result.success
    assert result.returned["held_by"] == "run-of-another"
    assert sent_keys(company, bank, batch_id) == []


def unknown_batch(_company: Company, _set_variables: SetVariables) -> int:
    return 4711


def batch_in(status: str) -> Callable[[Company, SetVariables], int]:
    return lambda company, _: company.batch([100], status=status)


def halted_by_switch(company: Company, _set_variables: SetVariables) -> int:
    with company.sessions.begin() as session:
        halt(session, "reconciling with Huntington", "Maria")
    return company.batch([100])


def with_variable(**variables: str | None) -> Callable[[Company, SetVariables], int]:
    def arrange(company: Company, set_variables: SetVariables) -> int:
        batch_id = company.batch([100, 200])
        set_variables(**variables)
        return batch_id

    return arrange


def with_statement(statement: str) -> Callable[[Company, SetVariables], int]:
    def arrange(company: Company, _set_variables: SetVariables) -> int:
        batch_id = company.batch([100])
        with company.sessions.begin() as session:
            session.execute(text(statement))
        return batch_id

    return arrange


PERMANENT_ERRORS: dict[str, tuple[Callable[[Company, SetVariables], int], list[str]]] = {
    "unknown batch": (unknown_batch, ["There is no batch 4711", "Nothing was sent"]),
    "draft": (batch_in("draft"), ["Batch {id} is 'draft'", "Queue the batch"]),
    "held": (batch_in("held"), ["Batch {id} is 'held'", "Queue the batch"]),
    "halted by the environment": (
        with_variable(SEEDTRUST_TRANSFERS_HALTED="1"),
        ["SEEDTRUST_TRANSFERS_HALTED", "Batch {id} was not changed"],
    ),
    "halted by the switch": (halted_by_switch, ["by Maria: reconciling with Huntington", "Batch {id} was not changed"]),
    "no bank url": (with_variable(HUNTINGTON_API_URL=None), ["HUNTINGTON_API_URL is not set. It is the URL"]),
    "no bank key": (with_variable(HUNTINGTON_API_KEY=None), ["HUNTINGTON_API_KEY is not set"]),
    "no funding account": (
        with_variable(HUNTINGTON_FUNDING_ACCOUNT_ID=None),
        ["HUNTINGTON_FUNDING_ACCOUNT_ID is not set"],
    ),
    "wrong bank key": (
        with_variable(HUNTINGTON_API_KEY="wrong"),
        ["HUNTINGTON_API_KEY (401)", "stay pending", "Set the right key"],
    ),
    "no field key": (with_variable(SEEDTRUST_FIELD_KEY=None), ["SEEDTRUST_FIELD_KEY is not set"]),
    "invalid field key": (with_variable(SEEDTRUST_FIELD_KEY="key"), ["SEEDTRUST_FIELD_KEY can't be used"]),
    "wrong field key": (
        with_variable(SEEDTRUST_FIELD_KEY=Fernet.generate_key().decode()),
        ["SEEDTRUST_FIELD_KEY decrypts no account number of batch {id}", "Set the right key"],
    ),
    "missing platform column": (
        with_statement("alter table huntington_transactions rename column payee_name to payee"),
        ["payee_name", "seedtrust-ops migrate"],
    ),
    "outdated schema": (
        with_statement("update ops.alembic_version set version_num = '0000'"),
        ["0000", "seedtrust-ops migrate"],
    ),
}


@pytest.mark.parametrize("name", PERMANENT_ERRORS)
def test_permanent_error_fails_once_with_one_sentence_and_no_change(
    company: Company, bank: BankProcess, set_variables: SetVariables, name: str
) -> None:
    arrange, fragments = PERMANENT_ERRORS[name]
    batch_id = arrange(company, set_variables)
    if name == "outdated schema":
        set_variables()
    posts = sum(request["method"] == "POST" and request["status"] != 401 for request in bank.control.requests())
    with company.sessions() as session:
        columns = "id, status, queued_at, finished_at"
        before = session.execute(text(f"select {columns} from huntington_batches order by id")).all()

    result = process(batch_id)

    assert not result.success
    assert result.attempts == 1
    (message,) = result.messages
    assert_is_readable(message)
    for fragment in fragments:
        assert fragment.format(id=batch_id) in message
    assert sum(request["method"] == "POST" and request["status"] != 401 for request in bank.control.requests()) == posts
    with company.sessions() as session:
        assert session.execute(text(f"select {columns} from huntington_batches order by id")).all() == before
        statuses = session.execute(text("select distinct status from huntington_transactions")).scalars().all()
    assert set(statuses) <= {"pending"}


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ({"account_number_encrypted": "gAAAAAdamaged"}, "can't be decrypted"),
        ({"account_number_encrypted": "número"}, "can't be decrypted"),
        ({"account_number": "123"}, "the account number is not 4 to 17 digits"),
        ({"routing_number": "123456789"}, "the routing number fails its check digit"),
        ({"routing_number": "12"}, "the routing number is not nine digits"),
        ({"payee_name": " "}, "the payee's name must be 1 to 35 printable characters"),
    ],
)
def test_batch_with_nothing_sendable_fails_with_each_reason(
    company: Company, bank: BankProcess, flaw: dict[str, Any], reason: str
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 100), 100, **flaw)
    result = process(batch_id)
    assert not result.success
    assert result.attempts == 1
    (message,) = result.messages
    assert_is_readable(message)
    assert f"batch {batch_id}" in message
    assert f"transaction {transaction_id}: not sent: " in message
    assert reason in message
    assert company.statuses(batch_id) == ["failed"]
    assert company.batch_row(batch_id).status == "failed"
    assert sent_keys(company, bank, batch_id) == []


def test_batch_that_is_partly_sendable_is_partly_sent_and_succeeds(company: Company, bank: BankProcess) -> None:
    case = company.case()
    batch_id = company.batch([100], case=case)
    company.transaction(batch_id, company.request(case, 100), 100, account_number_encrypted="número")
    result = process(batch_id)
    assert result.success
    assert result.returned["counts"] == {"completed": 1, "failed": 1}
    assert len(sent_keys(company, bank, batch_id)) == 1


def test_batch_that_waits_for_funds_succeeds_and_shows_what_is_missing(company: Company, bank: BankProcess) -> None:
    batch_id = company.batch([30_000, 12_345])
    bank.control.set_available_cents(2_345)
    result = process(batch_id)
    assert result.success
    assert result.attempts == 1
    assert result.returned == {
        "batch_id": batch_id,
        "status": "queued",
        "held_by": None,
        "counts": {"pending": 2},
        "awaits_funding": {"needed_cents": 42_345, "missing_cents": 40_000},
    }
    shown = {name: str(value.value) for name, value in result.metadata.items()}
    assert shown["Missing in the funding account"] == "$400.00"
    assert shown["Waits for funds"] == (
        "It needs $423.45. Funding account acct_escrow has $23.45 available, so $400.00 is missing."
    )
    assert sent_keys(company, bank, batch_id) == []


def test_unreachable_bank_leaves_the_batch_waiting_and_opens_an_alert(
    company: Company, set_variables: SetVariables, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch([100, 200])
    set_variables(HUNTINGTON_API_URL=f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(funding, "MAX_RECHECK_SECONDS", -1.0)
    result = process(batch_id)
    assert result.success
    assert result.returned["status"] == "queued"
    shown = str(result.metadata["Waits for funds"].value)
    assert_is_readable(shown)
    assert f"http://127.0.0.1:{closed_port}" in shown
    assert company.open_alerts() == [("bank_silent", "huntington")]
    assert company.statuses(batch_id) == ["pending", "pending"]
    assert company.batch_row(batch_id).status == "queued"


def test_bank_that_recovers_before_a_retry_gets_the_batch(
    company: Company, bank: BankProcess, set_variables: SetVariables
) -> None:
    batch_id = company.batch([100])
    bank.control.inject_fault("error_before_commit", times=4)
    set_variables(HUNTINGTON_CONCURRENCY="1")
    result = process(batch_id)
    assert result.success
    assert result.returned["counts"] in ({"completed": 1}, {"processing": 1})
    assert len(sent_keys(company, bank, batch_id)) <= 1


def test_database_outage_is_retried_and_reported_without_the_password(
    company: Company, bank: BankProcess, set_variables: SetVariables, closed_port: int
) -> None:
    batch_id = company.batch([100])
    set_variables(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{closed_port}/seedtrust")
    result = process(batch_id)
    assert not result.success
    assert result.attempts == 3
    for message in result.messages:
        assert f"Database seedtrust at 127.0.0.1:{closed_port} is unavailable" in message
        assert "SEEDTRUST_DATABASE_URL" in message
        assert "hunter2" not in message
    assert company.statuses(batch_id) == ["pending"]
    assert sent_keys(company, bank, batch_id) == []


def test_database_without_migrations_is_reported_and_unchanged(
    postgres_server: URL, set_variables: SetVariables
) -> None:
    with temporary_database(postgres_server) as url:
        create_platform_schema(url)
        set_variables(SEEDTRUST_DATABASE_URL=plain_url(url))
        result = process(1)
    assert (result.success, result.attempts) == (False, 1)
    assert "Run `seedtrust-ops migrate`" in result.messages[0]


@pytest.mark.parametrize(
    "config",
    [{"batch_id": "seven"}, {"batch_id": 7, "and": "more"}],
)
def test_config_that_is_invalid_is_rejected_before_anything_runs(config: dict[str, Any]) -> None:
    from seedtrust_ops.definitions import defs

    job = defs.resolve_job_def("process_huntington_batch")
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"batch_id|and"):
        job.execute_in_process(run_config={"ops": {"process_huntington_batch": {"config": config}}})


@pytest.mark.parametrize(
    ("batch_id", "sentence"),
    [
        (-1, "There is no batch -1"),
        (2**31, f"There is no batch {2**31}"),
        (2**63 - 1, f"There is no batch {2**63 - 1}"),
        (2**63, f"batch_id is '{2**63}' and must be less than or equal to {2**63 - 1}. Nothing was done."),
        (10**21 - 1, f"batch_id is '{10**21 - 1}' and must be less than or equal to {2**63 - 1}. Nothing was done."),
    ],
)
def test_batch_id_that_no_batch_can_have_is_named(batch_id: int, sentence: str) -> None:
    result = process(batch_id)
    assert (result.success, result.attempts) == (False, 1)
    assert sentence in result.messages[0]


@pytest.mark.parametrize("config", [{}, {"batch_id": 0}, {"batch_id": None}], ids=["missing", "default", "null"])
def test_launch_without_a_batch_id_says_where_to_enter_it(config: dict[str, Any]) -> None:
    result = run(PROCESS, {"ops": {PROCESS: {"config": config}}})
    assert (result.success, result.attempts) == (False, 1)
    assert result.messages[0].startswith("No batch id was given. Nothing was sent. Open this run in the launchpad")


def test_manual_run_is_listed_with_the_batchs_other_runs(company: Company, instance: dg.DagsterInstance) -> None:
    batch_id = company.batch([100])
    result = process(batch_id, instance)
    found = instance.get_runs(dg.RunsFilter(tags={"seedtrust/batch_id": str(batch_id)}))
    assert [run.run_id for run in found] == [result.run_id]
    link = result.metadata["All runs of this batch"].value
    assert link == f"/runs?q[0]=tag:seedtrust/batch_id={batch_id}"


def test_retry_policy_is_two_retries_exponential_from_two_seconds() -> None:
    assert (RETRIES.max_retries, RETRIES.delay, RETRIES.backoff) == (2, 2, dg.Backoff.EXPONENTIAL)


def test_run_for_a_batch_that_another_run_finished_succeeds(company: Company) -> None:
    batch_id = company.batch([100])
    assert process(batch_id).success
    assert process(batch_id).success
    finished_at = company.batch_row(batch_id).finished_at
    assert finished_at is not None
    assert finished_at <= datetime.now(UTC)
