"""The two approval jobs as Dagster runs them, and the sensor that requests runs of `rule_based_approval`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.jobs.rule_based_approval import COOLDOWN_RATIO, pending_dr_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import ApprovalRule, User
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.case_factory import CaseFactory

DATE, RULE = "dr_auto_approval", "rule_based_approval"


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


@pytest.fixture
def factory(sessions: sessionmaker[Session]) -> CaseFactory:
    return CaseFactory(sessions)


def dry_run_config(job: str) -> dict[str, Any]:
    return {"ops": {job: {"config": {"dry_run": True}}}}


def addresses(factory: CaseFactory, *user_ids: int) -> set[str]:
    with factory.sessions() as session:
        return {session.get_one(User, user_id).email for user_id in user_ids}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_run_approves_and_emails_once(factory: CaseFactory, mailbox: MailboxProcess, job: str) -> None:
    case = factory.case()
    rule = factory.rule()
    request = factory.request(case, 12_300)
    first, second = run(job), run(job)
    assert first.returned == {
        "dry_run": False,
        "approved": 1,
        "would_approve": 0,
        "amount_cents": 12_300,
        "emails": 3,
    }
    assert second.returned["approved"] == second.returned["emails"] == 0
    assert factory.approvals() == {request: "auto:date" if job == DATE else f"auto:rule:{rule}"}
    recipients = addresses(factory, case.parent_id, case.rep_id, case.manager_id)
    for address in recipients:
        (email,) = mailbox.control.emails(address)
        assert email.subject == f"Disbursement request {request} was approved: case {case.case_number}"
    assert {email.status for email in factory.emails().values()} == {"sent"}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_materialization_lists_approvals_and_dry_run_makes_none(factory: CaseFactory, job: str) -> None:
    case = factory.case()
    factory.rule()
    factory.request(case, 12_300)
    for config, count in ((dry_run_config(job), 0), (None, 1), (None, 0)):
        result = defs.resolve_job_def(job).execute_in_process(run_config=config)
        materializations = result.asset_materializations_for_node(job)
        assert len(materializations) == count
        for materialization in materializations:
            assert materialization.asset_key.to_user_string() == "approved_requests"
            assert "$123.00" in str(materialization.metadata["Approved (first 1 of 1)"].value)


@pytest.mark.parametrize("job", [DATE, RULE])
def test_dry_run_lists_what_it_would_approve_and_approves_nothing(factory: CaseFactory, job: str) -> None:
    case = factory.case()
    factory.rule()
    request = factory.request(case, 12_300)
    job_result = run(job, dry_run_config(job))
    assert (job_result.returned["dry_run"], job_result.returned["approved"], job_result.returned["would_approve"]) == (
        True,
        0,
        1,
    )
    table = job_result.metadata["Would be approved (first 1 of 1)"].value
    assert f"| {request} | {case.case_number} |" in table
    assert "$123.00" in table
    assert factory.approvals() == {}
    assert factory.emails() == {}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_invalid_config_is_rejected_before_any_work(factory: CaseFactory, job: str) -> None:
    factory.rule()
    factory.request(factory.case())
    with pytest.raises(dg.DagsterInvalidConfigError, match="dry_run"):
        run(job, {"ops": {job: {"config": {"dry_run": "perhaps"}}}})
    assert factory.approvals() == {}


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.RunRequest | str:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": DatabaseResource()})
    outcome = pending_dr_sensor(context)
    if isinstance(outcome, dg.SkipReason):
        return outcome.skip_message or ""
    assert isinstance(outcome, dg.RunRequest)
    return outcome


def test_sensor_requests_a_run_only_if_a_rule_approves_a_request(
    factory: CaseFactory, instance: dg.DagsterInstance
) -> None:
    assert str(tick(instance)).startswith("No pending request can be approved now")
    rule = factory.rule(daily_limit_cents=9_999)
    request = factory.request(factory.case(), 10_000)
    for _ in range(2):
        assert str(tick(instance)).startswith("No pending request can be approved now")
    factory.change(ApprovalRule, rule, daily_limit_cents=10_000)
    requested = tick(instance)
    assert isinstance(requested, dg.RunRequest)
    assert requested.tags["seedtrust/reason"] == f"rule {rule} approves request {request}"
    assert run(RULE, instance=instance).returned["approved"] == 1
    assert str(tick(instance)).startswith("No pending request can be approved now")


def test_sensor_pauses_after_a_slow_evaluation_that_found_nothing(
    factory: CaseFactory, instance: dg.DagsterInstance
) -> None:
    factory.rule()
    factory.request(factory.case())
    now = datetime.now(UTC)
    assert "The next is at" in str(tick(instance, (now + timedelta(minutes=1)).isoformat()))
    assert isinstance(tick(instance, (now - timedelta(seconds=1)).isoformat()), dg.RunRequest)


def test_fast_evaluation_does_not_delay_the_next_tick(factory: CaseFactory, instance: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    began = datetime.now(UTC)
    pending_dr_sensor(context)
    ended = datetime.now(UTC)
    assert context.cursor is not None
    # The pause is proportional to the evaluation, however slow this machine is: 0.1 s of evaluation means 2 s of pause.
    assert datetime.fromisoformat(context.cursor) <= ended + (ended - began) * COOLDOWN_RATIO


def test_sensor_requests_no_second_run_while_one_is_in_progress(
    factory: CaseFactory, instance: dg.DagsterInstance
) -> None:
    factory.rule()
    factory.request(factory.case())
    run_id = create_run_for_test(instance, job_name=RULE, status=dg.DagsterRunStatus.STARTED).run_id
    assert tick(instance) == f"Run {run_id} is in progress."
    started = instance.get_run_by_id(run_id)
    assert started is not None
    instance.report_run_canceled(started)
    assert str(tick(instance)).startswith("The last run did not succeed. The next run is at ")


def test_emails_of_a_run_that_crashed_after_commit_are_sent_by_the_next(
    factory: CaseFactory, mailbox: MailboxProcess
) -> None:
    case = factory.case()
    factory.request(case)
    run_in_transaction(factory.sessions, approve_due)
    assert mailbox.control.emails() == []
    assert run(DATE).returned["approved"] == 0
    assert len(mailbox.control.emails()) == 3
    assert {email.status for email in factory.emails().values()} == {"sent"}
