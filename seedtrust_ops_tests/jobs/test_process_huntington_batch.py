"""`process_huntington_batch` as people launch it: what it sends, and how it fails where it must not or can't send.

Every failure is one sentence that names what is wrong and what to do, sends nothing and loses nothing.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.engine import URL

from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.domain.transfers.kill_switch import halt
from seedtrust_ops.domain.transfers.leases import acquire_lease
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.jobs.job_runner import PROCESS, process, run
from seedtrust_ops_tests.support.databases import create_platform_schema, temporary_database, plain_url
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import SetVariables

pytestmark = pytest.mark.usefixtures("bank_environment", "impatient")


def sent(company: Company, bank: BankProcess, batch_id: int) -> list[str]:
    """The batch's keys that the bank has a transfer under."""
    keys = {idempotency_key(one.id) for one in company.transactions(batch_id)}
    return [one["idempotency_key"] for one in bank.control.ledger()["transfers"] if one["idempotency_key"] in keys]


def assert_is_one_clear_sentence(sentence: str) -> None:
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert "sqlalche.me" not in sentence
    assert sentence.endswith(".")


def test_a_queued_batch_is_sent_and_shown(company: Company, bank: BankProcess) -> None:
    batch_id = company.batch([30_000, 12_345])
    ran = process(batch_id)
    assert ran.success
    assert ran.tries == 1
    assert ran.returned == {"batch_id": batch_id, "status": "completed", "held_by": None, "counts": {"completed": 2}}
    assert company.batch_row(batch_id).status == "completed"
    assert len(sent(company, bank, batch_id)) == 2
    shown = {name: str(value.value) for name, value in ran.metadata.items()}
    assert shown["status"] == "completed"
    assert "$423.45" in shown["by status"]
    table = shown["transactions (first 2 of 2)"]
    for transaction in company.transactions(batch_id):
        assert f"…{transaction.account_number_last4}" in table
        assert company.cipher.decrypt(transaction.account_number_encrypted) not in table


def test_text_of_people_can_t_become_markup_in_what_is_shown(company: Company) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    company.transaction(batch_id, company.request(case, 100), 100, payee_name="a|b <script>[x](http://y)")
    table = next(str(value.value) for name, value in process(batch_id).metadata.items() if name.startswith("transac"))
    row = table.splitlines()[2]
    assert row.count("|") == 9
    assert "<script>" not in row
    assert "](" not in row


def test_a_batch_that_another_run_holds_is_left_alone_and_the_run_ends_well(
    company: Company, bank: BankProcess
) -> None:
    batch_id = company.batch([100])
    with company.sessions.begin() as session:
        acquire_lease(session, batch_id, "run-of-another", 60)
    ran = process(batch_id)
    assert ran.success
    assert ran.returned["held_by"] == "run-of-another"
    assert sent(company, bank, batch_id) == []


def unknown_batch(_company: Company, _change: SetVariables) -> int:
    return 4711


def batch_in(status: str) -> Callable[[Company, SetVariables], int]:
    return lambda company, _: company.batch([100], status=status)


def halted_by_switch(company: Company, _change: SetVariables) -> int:
    with company.sessions.begin() as session:
        halt(session, "reconciling with Huntington", "Maria")
    return company.batch([100])


def with_variable(**variables: str | None) -> Callable[[Company, SetVariables], int]:
    def arrange(company: Company, change: SetVariables) -> int:
        batch_id = company.batch([100, 200])
        change(**variables)
        return batch_id

    return arrange


def with_statement(statement: str) -> Callable[[Company, SetVariables], int]:
    def arrange(company: Company, _change: SetVariables) -> int:
        batch_id = company.batch([100])
        with company.sessions.begin() as session:
            session.execute(text(statement))
        return batch_id

    return arrange


BAD_INPUT: dict[str, tuple[Callable[[Company, SetVariables], int], list[str]]] = {
    "unknown batch": (unknown_batch, ["There is no batch 4711", "nothing was sent"]),
    "draft": (batch_in("draft"), ["Batch {id} is 'draft'", "Queue it"]),
    "held": (batch_in("held"), ["Batch {id} is 'held'", "Queue it"]),
    "halted by the environment": (
        with_variable(SEEDTRUST_TRANSFERS_HALTED="1"),
        ["SEEDTRUST_TRANSFERS_HALTED", "Batch {id} was not touched"],
    ),
    "halted by the switch": (halted_by_switch, ["by Maria: reconciling with Huntington", "Batch {id} was not touched"]),
    "no bank url": (with_variable(HUNTINGTON_API_URL=None), ["HUNTINGTON_API_URL is not set. It is the URL"]),
    "no bank key": (with_variable(HUNTINGTON_API_KEY=None), ["HUNTINGTON_API_KEY is not set"]),
    "no funding account": (
        with_variable(HUNTINGTON_FUNDING_ACCOUNT_ID=None),
        ["HUNTINGTON_FUNDING_ACCOUNT_ID is not set"],
    ),
    "wrong bank key": (
        with_variable(HUNTINGTON_API_KEY="wrong"),
        ["HUNTINGTON_API_KEY (401)", "stays pending", "Set the right key"],
    ),
    "no field key": (with_variable(SEEDTRUST_FIELD_KEY=None), ["SEEDTRUST_FIELD_KEY is not set"]),
    "no field key at all": (with_variable(SEEDTRUST_FIELD_KEY="key"), ["SEEDTRUST_FIELD_KEY can't be used"]),
    "wrong field key": (
        with_variable(SEEDTRUST_FIELD_KEY=Fernet.generate_key().decode()),
        ["SEEDTRUST_FIELD_KEY opens no account number of batch {id}", "set the right key"],
    ),
    "platform without a column": (
        with_statement("alter table huntington_transactions rename column payee_name to payee"),
        ["payee_name", "seedtrust-ops migrate"],
    ),
    "schema behind": (
        with_statement("update ops.alembic_version set version_num = '0000'"),
        ["0000", "seedtrust-ops migrate"],
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_what_a_retry_can_t_mend_fails_once_with_a_sentence_and_leaves_all_as_it_was(
    company: Company, bank: BankProcess, change: SetVariables, name: str
) -> None:
    arrange, wanted = BAD_INPUT[name]
    batch_id = arrange(company, change)
    if name == "schema behind":
        change()
    posts = sum(one["method"] == "POST" and one["status"] != 401 for one in bank.control.requests())
    with company.sessions() as session:
        columns = "id, status, queued_at, finished_at"
        before = session.execute(text(f"select {columns} from huntington_batches order by id")).all()

    ran = process(batch_id)

    assert not ran.success
    assert ran.tries == 1
    (sentence,) = ran.sentences
    assert_is_one_clear_sentence(sentence)
    for fragment in wanted:
        assert fragment.format(id=batch_id) in sentence
    assert sum(one["method"] == "POST" and one["status"] != 401 for one in bank.control.requests()) == posts
    with company.sessions() as session:
        assert session.execute(text(f"select {columns} from huntington_batches order by id")).all() == before
        statuses = session.execute(text("select distinct status from huntington_transactions")).scalars().all()
    assert set(statuses) <= {"pending"}


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ({"account_number_encrypted": "gAAAAAdamaged"}, "can't be decrypted"),
        ({"account_number_encrypted": "número"}, "can't be decrypted"),
        ({"account_number": "123"}, "the account number is not 4 to 17 digits"),
        ({"routing_number": "123456789"}, "the routing number fails its check digit"),
        ({"routing_number": "12"}, "the routing number is not nine digits"),
        ({"payee_name": " "}, "the payee's name must be 1 to 35 printable characters"),
    ],
)
def test_a_batch_in_which_nothing_can_be_sent_fails_with_each_transaction_s_reason(
    company: Company, bank: BankProcess, mistake: dict[str, Any], reason: str
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 100), 100, **mistake)
    ran = process(batch_id)
    assert not ran.success
    assert ran.tries == 1
    (sentence,) = ran.sentences
    assert_is_one_clear_sentence(sentence)
    assert f"batch {batch_id}" in sentence
    assert f"transaction {transaction_id}: not sent: " in sentence
    assert reason in sentence
    assert company.statuses(batch_id) == ["failed"]
    assert company.batch_row(batch_id).status == "failed"
    assert sent(company, bank, batch_id) == []


def test_a_batch_of_which_a_part_can_be_sent_is_sent_in_part_and_the_run_ends_well(
    company: Company, bank: BankProcess
) -> None:
    case = company.case()
    batch_id = company.batch([100], case=case)
    company.transaction(batch_id, company.request(case, 100), 100, account_number_encrypted="número")
    ran = process(batch_id)
    assert ran.success
    assert ran.returned["counts"] == {"completed": 1, "failed": 1}
    assert len(sent(company, bank, batch_id)) == 1


def test_a_bank_that_can_t_be_reached_is_tried_again_and_then_told_with_all_still_pending(
    company: Company, change: SetVariables, closed_port: int
) -> None:
    batch_id = company.batch([100, 200])
    change(HUNTINGTON_API_URL=f"http://127.0.0.1:{closed_port}")
    ran = process(batch_id)
    assert not ran.success
    assert ran.tries == 3
    for sentence in ran.sentences:
        assert_is_one_clear_sentence(sentence)
        assert "HUNTINGTON_API_URL" in sentence
        assert f"batch {batch_id} stays pending" in sentence
    assert company.statuses(batch_id) == ["pending", "pending"]
    assert company.batch_row(batch_id).status == "queued"


def test_a_bank_that_is_back_at_the_second_try_gets_the_batch(
    company: Company, bank: BankProcess, change: SetVariables
) -> None:
    batch_id = company.batch([100])
    bank.control.order_fault("error_before_commit", times=4)
    change(HUNTINGTON_CONCURRENCY="1")
    ran = process(batch_id)
    assert ran.success
    assert ran.returned["counts"] in ({"completed": 1}, {"processing": 1})
    assert len(sent(company, bank, batch_id)) <= 1


def test_a_database_that_is_down_is_tried_again_and_then_told_without_its_password(
    company: Company, bank: BankProcess, change: SetVariables, closed_port: int
) -> None:
    batch_id = company.batch([100])
    change(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{closed_port}/seedtrust")
    ran = process(batch_id)
    assert not ran.success
    assert ran.tries == 3
    for sentence in ran.sentences:
        assert f"The database seedtrust at 127.0.0.1:{closed_port} can't be used" in sentence
        assert "SEEDTRUST_DATABASE_URL" in sentence
        assert "hunter2" not in sentence
    assert company.statuses(batch_id) == ["pending"]
    assert sent(company, bank, batch_id) == []


def test_a_database_that_was_never_migrated_is_told_and_not_touched(postgres_server: URL, change: SetVariables) -> None:
    with temporary_database(postgres_server) as url:
        create_platform_schema(url)
        change(SEEDTRUST_DATABASE_URL=plain_url(url))
        ran = process(1)
    assert (ran.success, ran.tries) == (False, 1)
    assert "run `seedtrust-ops migrate`" in ran.sentences[0]


@pytest.mark.parametrize(
    "config",
    [{"batch_id": "seven"}, {"batch_id": 7, "and": "more"}],
)
def test_config_that_makes_no_sense_is_refused_by_name_before_anything_runs(config: dict[str, Any]) -> None:
    from seedtrust_ops.definitions import defs

    job = defs.resolve_job_def("process_huntington_batch")
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"batch_id|and"):
        job.execute_in_process(run_config={"ops": {"process_huntington_batch": {"config": config}}})


@pytest.mark.parametrize("batch_id", [-1, 2**31, 2**63 - 1, 2**63, 2**70])
def test_a_batch_number_that_no_batch_can_have_is_unknown(batch_id: int) -> None:
    ran = process(batch_id)
    assert (ran.success, ran.tries) == (False, 1)
    assert f"There is no batch {batch_id}" in ran.sentences[0]


@pytest.mark.parametrize("config", [{}, {"batch_id": 0}, {"batch_id": None}], ids=["left out", "left", "emptied"])
def test_a_launch_without_a_number_says_where_to_put_it(config: dict[str, Any]) -> None:
    ran = run(PROCESS, {"ops": {PROCESS: {"config": config}}})
    assert (ran.success, ran.tries) == (False, 1)
    assert ran.sentences[0].startswith("No batch was named, so nothing was sent. Open this run in the launchpad")


def test_a_run_by_hand_is_found_with_the_batchs_other_runs(company: Company, instance: dg.DagsterInstance) -> None:
    batch_id = company.batch([100])
    ran = process(batch_id, instance)
    found = instance.get_runs(dg.RunsFilter(tags={"seedtrust/batch_id": str(batch_id)}))
    assert [one.run_id for one in found] == [ran.run_id]
    link = ran.metadata["all runs of this batch"].value
    assert link == f"/runs?q[0]=tag:seedtrust/batch_id={batch_id}"


def test_every_op_retries_twice_after_two_seconds_and_then_longer() -> None:
    assert (RETRIES.max_retries, RETRIES.delay, RETRIES.backoff) == (2, 2, dg.Backoff.EXPONENTIAL)


def test_a_run_asked_for_before_another_finished_the_batch_ends_well(company: Company) -> None:
    batch_id = company.batch([100])
    assert process(batch_id).success
    assert process(batch_id).success
    finished_at = company.batch_row(batch_id).finished_at
    assert finished_at is not None
    assert finished_at <= datetime.now(UTC)
