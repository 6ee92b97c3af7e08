"""The reminder jobs, off-site tracking and the example jobs as Dagster runs them."""

from datetime import timedelta

import dagster as dg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.notifications.renderer import format_day
from seedtrust_ops.jobs import examples
from seedtrust_ops.monitoring.job_run_sensor import mirror_changed_runs
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import JobRun, User
from seedtrust_ops.tag_names import PROGRESS_TAG
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.case_factory import CaseFactory


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def address(factory: CaseFactory, user_id: int) -> str:
    with factory.sessions() as session:
        return session.get_one(User, user_id).email


def test_case_close_reminder_uses_the_office_date_and_is_sent_once(
    factory: CaseFactory, mailbox: MailboxProcess
) -> None:
    case = factory.case(close_on=office_today())
    late = factory.case(close_on=office_today() - timedelta(days=1))
    factory.case(close_on=office_today() + timedelta(days=1))
    assert run("case_close_reminders").returned == {"as_of": str(office_today()), "emails": 2}
    assert run("case_close_reminders").returned["emails"] == 0
    (on_time,) = mailbox.control.emails(address(factory, case.specialist_id))
    (overdue,) = mailbox.control.emails(address(factory, late.specialist_id))
    assert on_time.subject == f"Closes on {format_day(str(office_today()))}: case {case.case_number}"
    assert overdue.subject.startswith(f"Closing is overdue: case {late.case_number}")


def test_balance_reminders_are_sent_once_a_day(factory: CaseFactory, mailbox: MailboxProcess) -> None:
    case = factory.case(balance_cents=5, minimum_balance_cents=10)
    admin = factory.user("admin")
    assert run("account_balance_reminders").returned == {"as_of": str(office_today()), "emails": 2}
    assert run("account_balance_reminders").returned["emails"] == 0
    for user in (case.manager_id, admin):
        (email,) = mailbox.control.emails(address(factory, user))
        assert email.subject == "1 account is below the minimum balance"


def test_off_site_tracking_returns_what_it_cleared(factory: CaseFactory) -> None:
    factory.user("admin", is_on_site=True)
    assert run("off_site_tracking").returned == {"users": 1, "viewed_requests": 0, "viewed_payments": 0}
    assert run("off_site_tracking").returned == {"users": 0, "viewed_requests": 0, "viewed_payments": 0}


@pytest.mark.parametrize("name", ["example", "example_error", "example_progress", "example_with_args"])
def test_example_jobs_do_not_exist_in_production(name: str) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError):
        defs.resolve_job_def(name)


def run_example(
    job: dg.JobDefinition, instance: dg.DagsterInstance | None = None, **config: object
) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(
        run_config={"ops": {job.name: {"config": config}}} if config else None,
        resources={"database": DatabaseResource()},
        instance=instance,
        raise_on_error=False,
    )


def test_example_jobs_succeed_fail_and_take_arguments() -> None:
    assert run_example(examples.example).output_for_node("example") == "hello"
    failed = run_example(examples.example_error)
    assert not failed.success
    assert not any(event.is_step_up_for_retry for event in failed.all_events)
    greeted = run_example(examples.example_with_args, name="Dana", times=2)
    assert greeted.output_for_node("example_with_args") == ["Hello, Dana."] * 2


def test_progress_is_tagged_on_the_run_and_result_mirrored_to_job_run(
    factory: CaseFactory, instance: dg.DagsterInstance
) -> None:
    result = examples.example_progress.execute_in_process(
        run_config={"ops": {"example_progress": {"config": {"steps": 3, "seconds_per_step": 0}}}},
        resources={"io_manager": in_memory_io_manager},
        instance=instance,
    )
    assert result.output_for_node("example_progress") == {"steps": 3}
    run_record = instance.get_run_by_id(result.run_id)
    assert run_record is not None
    assert run_record.tags[PROGRESS_TAG] == "3 of 3"
    mirror_changed_runs(instance, DatabaseResource(), None)
    with factory.sessions() as session:
        job_run = session.scalars(select(JobRun).where(JobRun.run_id == result.run_id)).one()
    assert (job_run.status, job_run.result) == ("COMPLETED", {"steps": 3})
