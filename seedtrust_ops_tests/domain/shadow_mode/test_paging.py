"""While a job is in shadow mode the legacy system does its work, and nobody is paged for either."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.cli.console import PlainConsole
from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.health.rule import HealthRule
from seedtrust_ops.monitoring.health_rules import JOB_COVERED_BY_RULE, health_rules
from seedtrust_ops.status.collector import collect_status
from seedtrust_ops.status.health import evaluate_health
from seedtrust_ops.status.renderer import print_status
from seedtrust_ops.tables import Account, FundingCheck, JobRun, ReportRequest, UnknownTransfer
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("production")


def rules() -> dict[str, HealthRule]:
    now = datetime.now(UTC)
    due = health_rules(defs.get_repository_def(), now=now, daemon_up_since=now, destinations=[])
    return {rule.name: rule for rule in due}


def severities(sessions: sessionmaker[Session], *names: str) -> dict[str, set[str]]:
    """Return the severities that each rule finds."""
    with sessions() as session:
        return {name: {finding.severity.value for finding in rules()[name].find(session)} for name in names}


def create_incident_for_every_rule(company: Company, factory: CaseFactory) -> None:
    """Create work of each kind that has waited for days, and failed runs of a CRITICAL job."""
    days_ago = datetime.now(UTC) - timedelta(days=3)
    company.batch([100], queued_at=days_ago)
    company.batch([100], status="held")
    waiting = company.batch([100], queued_at=days_ago)
    overdue = company.batch(status="processing", started_at=days_ago - timedelta(days=30))
    company.transaction(overdue, None, 100, status="submitted")
    factory.request(factory.case(), auto_authorize_at=days_ago)
    admin = factory.user("admin")
    case = company.case()
    with company.sessions.begin() as session:
        session.add(ReportRequest(user_id=admin, kind="account_balances", requested_at=days_ago))
        session.get_one(Account, case.account_id).balance_cents += 1
        session.add(
            FundingCheck(
                batch_id=waiting, funding_account_id="acct_escrow", lease_token="t", outcome="short", needed_cents=100,
                reserved_cents=0, available_cents=0, checked_at=days_ago, not_before=days_ago,
            )
        )  # fmt: skip
        session.add(
            UnknownTransfer(
                bank_transfer_id="tr_1", idempotency_key="foreign", reference="x", status="completed", method="wire",
                amount_cents=100, created_at=days_ago, updated_at=days_ago, problem="its reference is no number",
            )
        )  # fmt: skip
        for number in range(3):
            session.add(
                JobRun(
                    run_id=f"run-{number}", task_name="dr_auto_approval", status="ERROR", resolution="ERROR",
                    queued_at=datetime.now(UTC), finished_at=datetime.now(UTC),
                )
            )  # fmt: skip


def test_work_rules_find_nothing_while_their_job_is_in_shadow_mode(
    company: Company, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    create_incident_for_every_rule(company, CaseFactory(sessions))
    work = [name for name in JOB_COVERED_BY_RULE if name != "transfers_halted"]
    assert all(severities(sessions, *work).values())
    set_variables(SEEDTRUST_SHADOW="1")
    assert severities(sessions, *JOB_COVERED_BY_RULE) == {name: set() for name in JOB_COVERED_BY_RULE}
    set_variables(SEEDTRUST_SHADOW=None, SEEDTRUST_SHADOW_JOBS="dr_auto_approval")
    found = severities(sessions, *work)
    assert found.pop("drs_overdue") == set()
    assert all(found.values())


def test_failure_in_shadow_mode_is_only_a_digest_line(
    company: Company, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    create_incident_for_every_rule(company, CaseFactory(sessions))
    assert severities(sessions, "error_spike") == {"error_spike": {"CRITICAL"}}
    set_variables(SEEDTRUST_SHADOW_JOBS="dr_auto_approval")
    assert severities(sessions, "error_spike") == {"error_spike": {"LOW"}}


def test_mistyped_shadow_variable_still_alerts_on_failures(
    company: Company, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    create_incident_for_every_rule(company, CaseFactory(sessions))
    set_variables(SEEDTRUST_SHADOW_JOBS="dr_auto_approval, raport_generation")
    assert severities(sessions, "error_spike") == {"error_spike": {"CRITICAL"}}


def test_status_names_the_jobs_in_shadow_mode(
    dagster_home: DagsterHome, set_variables: SetVariables, capsys: pytest.CaptureFixture[str]
) -> None:
    set_variables(
        SEEDTRUST_SHADOW_JOBS="dr_auto_approval,report_generation",
        DAGSTER_POSTGRES_URL=dagster_home.variables["DAGSTER_POSTGRES_URL"],
    )
    report = collect_status()
    assert report.dagster is not None
    assert {job.name for job in report.dagster.jobs if job.is_in_shadow_mode} == {
        "dr_auto_approval",
        "report_generation",
    }
    health = evaluate_health(report, heartbeat_seconds=60, dev_env=get_settings().location.dev_env)
    print_status(PlainConsole(width=200), report, health)
    assert "Shadow mode (these jobs only record decisions): dr_auto_approval, report_generation." in (
        capsys.readouterr().out
    )
