"""While a job is in shadow a legacy system does its work, and nobody is woken for either."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.cli.console import PlainConsole
from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.health.rule import Rule
from seedtrust_ops.monitoring.health_rules import WORK_OF, health_rules
from seedtrust_ops.status.collector import collect_status
from seedtrust_ops.status.health import judge_health
from seedtrust_ops.status.renderer import print_standing
from seedtrust_ops.tables import Account, JobRun, ReportRequest
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import Change
from seedtrust_ops_tests.support.office_factory import Office

pytestmark = pytest.mark.usefixtures("production")


def rules() -> dict[str, Rule]:
    now = datetime.now(UTC)
    asked = health_rules(defs.get_repository_def(), now=now, awake_since=now, told=[])
    return {rule.name: rule for rule in asked}


def severities(sessions: sessionmaker[Session], *names: str) -> dict[str, set[str]]:
    """How bad what each rule finds is."""
    with sessions() as session:
        return {name: {finding.severity.value for finding in rules()[name].find(session)} for name in names}


def trouble_for_every_rule(company: Company, office: Office) -> None:
    """Work of each kind that has waited for days, and a failed run of a CRITICAL job."""
    days_ago = datetime.now(UTC) - timedelta(days=3)
    company.batch([100], queued_at=days_ago)
    office.request(office.case(), auto_authorize_at=days_ago)
    admin = office.user("admin")
    case = company.case()
    with company.sessions.begin() as session:
        session.add(ReportRequest(user_id=admin, kind="account_balances", requested_at=days_ago))
        session.get_one(Account, case.account_id).balance_cents += 1
        for number in range(3):
            session.add(
                JobRun(
                    run_id=f"run-{number}", task_name="dr_auto_approval", status="ERROR", resolution="ERROR",
                    queued_at=datetime.now(UTC), finished_at=datetime.now(UTC),
                )
            )  # fmt: skip


def test_rules_about_work_find_nothing_while_its_job_is_in_shadow(
    company: Company, sessions: sessionmaker[Session], change: Change
) -> None:
    trouble_for_every_rule(company, Office(sessions))
    work = [name for name in WORK_OF if name != "transfers_halted"]
    assert all(severities(sessions, *work).values())
    change(SEEDTRUST_SHADOW="1")
    assert severities(sessions, *WORK_OF) == {name: set() for name in WORK_OF}
    change(SEEDTRUST_SHADOW=None, SEEDTRUST_SHADOW_JOBS="dr_auto_approval")
    found = severities(sessions, *work)
    assert found.pop("drs_overdue") == set()
    assert all(found.values())


def test_a_failure_in_shadow_is_worth_a_line_in_the_digest_and_no_more(
    company: Company, sessions: sessionmaker[Session], change: Change
) -> None:
    trouble_for_every_rule(company, Office(sessions))
    assert severities(sessions, "error_spike") == {"error_spike": {"CRITICAL"}}
    change(SEEDTRUST_SHADOW_JOBS="dr_auto_approval")
    assert severities(sessions, "error_spike") == {"error_spike": {"LOW"}}


def test_people_still_hear_of_failures_where_the_variable_is_mistyped(
    company: Company, sessions: sessionmaker[Session], change: Change
) -> None:
    trouble_for_every_rule(company, Office(sessions))
    change(SEEDTRUST_SHADOW_JOBS="dr_auto_approval, raport_generation")
    assert severities(sessions, "error_spike") == {"error_spike": {"CRITICAL"}}


def test_status_names_the_jobs_that_are_in_shadow(
    dagster_home: DagsterHome, change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    change(
        SEEDTRUST_SHADOW_JOBS="dr_auto_approval,report_generation",
        DAGSTER_POSTGRES_URL=dagster_home.variables["DAGSTER_POSTGRES_URL"],
    )
    standing = collect_status()
    assert standing.dagster is not None
    assert {job.name for job in standing.dagster.jobs if job.in_shadow} == {"dr_auto_approval", "report_generation"}
    health = judge_health(standing, heartbeat_seconds=60, dev_env=get_settings().location.dev_env)
    print_standing(PlainConsole(width=200), standing, health)
    assert "In shadow, recording only what they would have done: dr_auto_approval, report_generation." in (
        capsys.readouterr().out
    )
