"""The two approving jobs as Dagster runs them, and the sensor that asks for runs of one of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.approvals.by_date import approve_due
from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.jobs.rule_based_approval import REST_AFTER_A_LOOK, pending_dr_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import ApprovalRule, User
from seedtrust_ops_tests.jobs.job_runner import run
from seedtrust_ops_tests.support.office_factory import Office

DATE, RULE = "dr_auto_approval", "rule_based_approval"


@pytest.fixture(autouse=True)
def production(bank_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with the test's database and the session's mail server."""


@pytest.fixture
def office(sessions: sessionmaker[Session]) -> Office:
    return Office(sessions)


def dry(job: str) -> dict[str, Any]:
    return {"ops": {job: {"config": {"dry_run": True}}}}


def addresses(office: Office, *user_ids: int) -> set[str]:
    with office.sessions() as session:
        return {session.get_one(User, user_id).email for user_id in user_ids}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_run_approves_and_delivers_and_a_second_changes_and_sends_nothing(
    office: Office, mailbox: MailboxProcess, job: str
) -> None:
    case = office.case()
    rule = office.rule()
    request = office.request(case, 12_300)
    first, second = run(job), run(job)
    assert first.returned == {
        "dry_run": False,
        "approved": 1,
        "would_approve": 0,
        "amount_cents": 12_300,
        "letters": 3,
    }
    assert second.returned["approved"] == second.returned["letters"] == 0
    assert office.approvals() == {request: "auto:date" if job == DATE else f"auto:rule:{rule}"}
    told = addresses(office, case.parent_id, case.rep_id, case.manager_id)
    for address in told:
        (letter,) = mailbox.control.letters(address)
        assert letter.subject == f"Disbursement request {request} was approved: case {case.case_number}"
    assert {letter.status for letter in office.letters().values()} == {"sent"}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_what_is_approved_is_a_materialization_with_its_table_and_a_dry_run_is_none(office: Office, job: str) -> None:
    case = office.case()
    office.rule()
    office.request(case, 12_300)
    for config, made in ((dry(job), 0), (None, 1), (None, 0)):
        result = defs.resolve_job_def(job).execute_in_process(run_config=config)
        shown = result.asset_materializations_for_node(job)
        assert len(shown) == made
        for one in shown:
            assert one.asset_key.to_user_string() == "approved_requests"
            assert "$123.00" in str(one.metadata["approved (first 1 of 1)"].value)


@pytest.mark.parametrize("job", [DATE, RULE])
def test_dry_run_shows_a_table_of_what_it_would_approve_and_approves_nothing(office: Office, job: str) -> None:
    case = office.case()
    office.rule()
    request = office.request(case, 12_300)
    ran = run(job, dry(job))
    assert (ran.returned["dry_run"], ran.returned["approved"], ran.returned["would_approve"]) == (True, 0, 1)
    table = ran.metadata["would be approved (first 1 of 1)"].value
    assert f"| {request} | {case.case_number} |" in table
    assert "$123.00" in table
    assert office.approvals() == {}
    assert office.letters() == {}


@pytest.mark.parametrize("job", [DATE, RULE])
def test_config_that_makes_no_sense_is_refused_before_anything_is_done(office: Office, job: str) -> None:
    office.rule()
    office.request(office.case())
    with pytest.raises(dg.DagsterInvalidConfigError, match="dry_run"):
        run(job, {"ops": {job: {"config": {"dry_run": "perhaps"}}}})
    assert office.approvals() == {}


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.RunRequest | str:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"database": DatabaseResource()})
    outcome = pending_dr_sensor(context)
    if isinstance(outcome, dg.SkipReason):
        return outcome.skip_message or ""
    assert isinstance(outcome, dg.RunRequest)
    return outcome


def test_sensor_asks_for_a_run_only_where_a_rule_approves_something_now(
    office: Office, instance: dg.DagsterInstance
) -> None:
    assert tick(instance) == "No pending request is one that an enabled rule could approve."
    rule = office.rule(daily_limit_cents=9_999)
    request = office.request(office.case(), 10_000)
    for _ in range(2):
        assert "No rule approves any of the 1 pending requests now" in str(tick(instance))
    office.change(ApprovalRule, rule, daily_limit_cents=10_000)
    asked = tick(instance)
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["seedtrust/reason"] == f"rule {rule} approves request {request}"
    assert run(RULE, instance=instance).returned["approved"] == 1
    assert tick(instance) == "No pending request is one that an enabled rule could approve."


def test_sensor_rests_after_a_long_look_that_found_nothing(office: Office, instance: dg.DagsterInstance) -> None:
    office.rule()
    office.request(office.case())
    now = datetime.now(UTC)
    assert "the next is at" in str(tick(instance, (now + timedelta(minutes=1)).isoformat()))
    assert isinstance(tick(instance, (now - timedelta(seconds=1)).isoformat()), dg.RunRequest)


def test_short_look_that_found_nothing_holds_up_no_later_tick(office: Office, instance: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    began = datetime.now(UTC)
    pending_dr_sensor(context)
    ended = datetime.now(UTC)
    assert context.cursor is not None
    # In proportion to the look itself, however slow this machine is: with a look of a tenth of a second, two seconds.
    assert datetime.fromisoformat(context.cursor) <= ended + (ended - began) * REST_AFTER_A_LOOK


def test_sensor_asks_for_no_second_run_while_one_is_on_its_way(office: Office, instance: dg.DagsterInstance) -> None:
    office.rule()
    office.request(office.case())
    run_id = create_run_for_test(instance, job_name=RULE, status=dg.DagsterRunStatus.STARTED).run_id
    assert tick(instance) == f"Run {run_id} is on its way."
    started = instance.get_run_by_id(run_id)
    assert started is not None
    instance.report_run_canceled(started)
    assert str(tick(instance)).startswith("The last run did not succeed; the next is at ")


def test_letters_of_a_run_that_died_after_its_commit_are_sent_by_the_next(
    office: Office, mailbox: MailboxProcess
) -> None:
    case = office.case()
    office.request(case)
    run_in_transaction(office.sessions, approve_due)
    assert mailbox.control.letters() == []
    assert run(DATE).returned["approved"] == 0
    assert len(mailbox.control.letters()) == 3
    assert {letter.status for letter in office.letters().values()} == {"sent"}
