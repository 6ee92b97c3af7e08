"""The reminders, the off-site tracking and the examples as Dagster runs them."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs import examples
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.io_manager import returned_values
from seedtrust_ops.orchestration.metadata import PROGRESS_TAG
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import JobRun, User
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.office_factory import Office


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


@pytest.fixture
def office(sessions: sessionmaker[Session]) -> Office:
    return Office(sessions)


def address(office: Office, user_id: int) -> str:
    with office.sessions() as session:
        return session.get_one(User, user_id).email


def test_closings_are_told_by_the_offices_date_and_once(office: Office, mailbox: MailboxProcess) -> None:
    case = office.case(close_on=office_today())
    late = office.case(close_on=office_today() - timedelta(days=1))
    office.case(close_on=office_today() + timedelta(days=1))
    assert run("case_close_reminders").returned == {"letters": 2}
    assert run("case_close_reminders").returned == {"letters": 0}
    (on_time,) = mailbox.control.letters(address(office, case.specialist_id))
    (afterwards,) = mailbox.control.letters(address(office, late.specialist_id))
    assert on_time.subject == f"Closes today: case {case.case_number}"
    assert afterwards.subject.startswith(f"Closing is overdue: case {late.case_number}")


def test_low_balances_are_told_once_a_day(office: Office, mailbox: MailboxProcess) -> None:
    case = office.case(balance_cents=5, minimum_balance_cents=10)
    admin = office.user("admin")
    assert run("account_balance_reminders").returned == {"as_of": str(office_today()), "letters": 2}
    assert run("account_balance_reminders").returned["letters"] == 0
    for user in (case.manager_id, admin):
        (letter,) = mailbox.control.letters(address(office, user))
        assert letter.subject == "1 account is below the minimum balance"


def test_off_site_tracking_says_what_it_cleared(office: Office) -> None:
    office.user("admin", is_on_site=True)
    assert run("off_site_tracking").returned == {"users": 1, "viewed_requests": 0, "viewed_payments": 0}
    assert run("off_site_tracking").returned == {"users": 0, "viewed_requests": 0, "viewed_payments": 0}


@pytest.mark.parametrize("name", ["example", "example_error", "example_progress", "example_with_args"])
def test_production_knows_no_example(name: str) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError):
        defs.resolve_job_def(name)


@pytest.fixture
def on_a_developers_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DEV_ENV", "1")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("on_a_developers_machine")
def test_developers_machine_has_all_four() -> None:
    names = [job.name for job in examples.example_jobs()]
    assert names == ["example", "example_error", "example_progress", "example_with_args"]


def example(
    job: dg.JobDefinition, instance: dg.DagsterInstance | None = None, **config: object
) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(
        run_config={"ops": {job.name: {"config": config}}} if config else None,
        resources={"database": DatabaseResource()},
        instance=instance,
        raise_on_error=False,
    )


def test_examples_work_fail_and_take_arguments() -> None:
    assert example(examples.example).output_for_node("example") == "hello"
    failed = example(examples.example_error)
    assert not failed.success
    assert not any(event.is_step_up_for_retry for event in failed.all_events)
    greeted = example(examples.example_with_args, name="Dana", times=2)
    assert greeted.output_for_node("example_with_args") == ["Hello, Dana."] * 2


def test_progress_is_shown_in_the_runs_tags_and_what_it_came_to_in_job_run(
    office: Office, instance: dg.DagsterInstance
) -> None:
    result = examples.example_progress.execute_in_process(
        run_config={"ops": {"example_progress": {"config": {"steps": 3, "seconds_a_step": 0}}}},
        resources={"io_manager": returned_values},
        instance=instance,
    )
    assert result.output_for_node("example_progress") == {"steps": 3}
    shown = instance.get_run_by_id(result.run_id)
    assert shown is not None
    assert shown.tags[PROGRESS_TAG] == "3 of 3"
    mirror_changed_runs(instance, DatabaseResource(), None)
    with office.sessions() as session:
        kept = session.scalars(select(JobRun).where(JobRun.run_id == result.run_id)).one()
    assert (kept.status, kept.result) == ("COMPLETED", {"steps": 3})
