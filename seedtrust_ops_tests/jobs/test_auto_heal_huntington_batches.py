"""`auto_heal_huntington_batches`: when its schedule launches a run, what the run records, and how it fails."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import update

from seedtrust_ops.jobs.auto_heal_huntington_batches import NAME, auto_heal_huntington_batches_schedule
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import BankFeedCursor, HuntingtonTransaction
from seedtrust_ops_tests.jobs.job_runner import process, run
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("bank_environment", "no_retry_delays")


def tick(instance: dg.DagsterInstance) -> dg.RunRequest | str:
    context = dg.build_schedule_context(instance=instance, resources={"database": DatabaseResource()})
    result = auto_heal_huntington_batches_schedule(context)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    assert isinstance(result, dg.RunRequest)
    return result


def feed_was_read(company: Company, ago: timedelta) -> None:
    read_at = datetime.now(UTC) - ago
    with company.sessions.begin() as session:
        session.add(BankFeedCursor(name="huntington", read_up_to=read_at, last_read_at=read_at))


def reason(requested: dg.RunRequest | str) -> str:
    assert isinstance(requested, dg.RunRequest), requested
    return requested.tags["seedtrust/reason"]


def test_tick_with_nothing_open_and_a_recent_feed_launches_nothing(
    instance: dg.DagsterInstance, company: Company
) -> None:
    feed_was_read(company, timedelta(minutes=14))
    company.batch([100])
    company.batch([100], status="held")
    assert tick(instance) == (
        "No transfer is awaiting bank status, no email is due, and the bank's feed was read recently."
    )


@pytest.mark.parametrize("ago", [None, timedelta(minutes=16)])
def test_feed_not_read_for_15_minutes_launches_a_run(
    instance: dg.DagsterInstance, company: Company, ago: timedelta | None
) -> None:
    if ago is not None:
        feed_was_read(company, ago)
    assert "feed" in reason(tick(instance))


@pytest.mark.parametrize(
    ("status", "failure"),
    [("submitted", None), ("processing", None), ("failed", "timeout after 30 s"), ("failed", "Timeout")],
)
def test_open_transfer_launches_a_run(
    instance: dg.DagsterInstance, company: Company, status: str, failure: str | None
) -> None:
    feed_was_read(company, timedelta(0))
    company.batch([100], status="completed")
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status=status, failure_reason=failure))
    assert reason(tick(instance)) == "1 transaction awaiting bank status"


@pytest.mark.parametrize(
    ("status", "failure"), [("completed", None), ("failed", "invalid_account"), ("returned", "R01")]
)
def test_settled_transfer_launches_no_run(
    instance: dg.DagsterInstance, company: Company, status: str, failure: str | None
) -> None:
    feed_was_read(company, timedelta(0))
    company.batch([100], status="completed")
    with company.sessions.begin() as session:
        session.execute(update(HuntingtonTransaction).values(status=status, failure_reason=failure))
    assert isinstance(tick(instance), str)


def test_batch_that_may_have_lost_its_worker_launches_a_run(instance: dg.DagsterInstance, company: Company) -> None:
    feed_was_read(company, timedelta(0))
    company.batch([100], status="processing")
    assert reason(tick(instance)) == "1 batch processing, possibly without a worker"


def test_run_in_progress_blocks_another_launch(instance: dg.DagsterInstance, company: Company) -> None:
    company.batch([100], status="processing")
    run_id = create_run_for_test(instance, job_name=NAME, status=dg.DagsterRunStatus.STARTED).run_id
    assert tick(instance) == f"Run {run_id} is already in progress."
    event = DagsterEvent(DagsterEventType.PIPELINE_SUCCESS.value, NAME, message="done")
    instance.run_storage.handle_run_event(run_id, event)
    assert isinstance(tick(instance), dg.RunRequest)


def test_heal_records_and_shows_the_banks_statuses(
    instance: dg.DagsterInstance, company: Company, bank: BankProcess
) -> None:
    case = company.case()
    batch_id = company.batch(case=case)
    transaction_id = company.transaction(batch_id, company.request(case, 70_000), 70_000, method="ach")
    assert process(batch_id).success
    assert company.statuses(batch_id) == ["submitted"]
    assert isinstance(tick(instance), dg.RunRequest)
    bank.control.settle()
    job_result = run(NAME)
    assert job_result.success
    assert job_result.returned["changed"] == 1
    assert company.statuses(batch_id) == ["completed"]
    changes = str(job_result.metadata["Changes (first 1 of 1)"].value)
    batch = f"[{batch_id}](/runs?q[0]=tag:seedtrust/batch_id={batch_id})"
    assert f"| {transaction_id} | {batch} | submitted | completed | $700.00 |" in changes
    assert isinstance(tick(instance), str)


@pytest.mark.parametrize(
    ("variables", "fragment", "tries"),
    [
        ({"HUNTINGTON_API_URL": None}, "HUNTINGTON_API_URL is not set", 1),
        ({"HUNTINGTON_API_URL": "http://bank.example"}, "HUNTINGTON_API_URL is refused", 1),
        ({"HUNTINGTON_API_KEY": "wrong"}, "HUNTINGTON_API_KEY", 1),
        ({"HUNTINGTON_API_URL": "http://127.0.0.1:{port}"}, "gave no readable response", 3),
        ({"SEEDTRUST_DATABASE_URL": "postgresql://127.0.0.1:{port}/seedtrust"}, "is unavailable", 3),
        ({"SEEDTRUST_DATABASE_URL": "postgresql://db.example/seedtrust"}, "SEEDTRUST_DATABASE_URL is refused", 1),
    ],
)
def test_error_is_one_sentence_and_retried_only_if_that_may_help(
    company: Company,
    set_variables: SetVariables,
    closed_port: int,
    variables: dict[str, str | None],
    fragment: str,
    tries: int,
) -> None:
    company.batch([100], status="processing")
    set_variables(**{name: value and value.format(port=closed_port) for name, value in variables.items()})
    job_result = run(NAME)
    assert not job_result.success
    assert job_result.attempts == tries
    for sentence in job_result.messages:
        assert fragment in sentence
        assert "\n" not in sentence


def test_missing_field_key_does_not_affect_auto_heal(company: Company, set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_FIELD_KEY=None)
    assert run(NAME).success


def test_run_that_hangs_is_ended_by_dagster() -> None:
    from seedtrust_ops.definitions import defs

    assert defs.resolve_job_def(NAME).tags["dagster/max_runtime"] == "900"


def test_database_outage_is_reported_in_one_sentence(
    instance: dg.DagsterInstance, set_variables: SetVariables, closed_port: int
) -> None:
    set_variables(SEEDTRUST_DATABASE_URL=f"postgresql://ops:hunter2@127.0.0.1:{closed_port}/seedtrust")
    with pytest.raises(dg.Failure, match="SEEDTRUST_DATABASE_URL"):
        tick(instance)
