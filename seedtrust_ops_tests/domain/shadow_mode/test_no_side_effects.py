"""A job in shadow mode records what it would have done and changes nothing else."""

from collections.abc import Sequence

import dagster as dg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.account_balance_check import last_complete_week
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.tables import ShadowDecision
from seedtrust_ops_tests.domain.shadow_mode.side_effects import RecordedSideEffects, changed_tables, read_all_tables
from seedtrust_ops_tests.support.all_jobs import (
    CHECK,
    PROCESS,
    create_work_for_every_job,
    evaluate_every_automation,
    unexpected_failures,
)
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

DECISIONS = "ops.shadow_decisions"
MONITORING_TABLES = {"public.job_runs", "public.errors", "ops.alerts", "ops.outgoing_events", "ops.notifications"}
"""What monitoring records about our own runs; it continues in shadow mode (docs/cutover.md)."""


EVERY_JOB = [job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
DECIDING = ["dr_auto_approval", "off_site_tracking", PROCESS, CHECK]


def run_all(
    instance: dg.DagsterInstance, batch_id: int, names: Sequence[str] = EVERY_JOB
) -> dict[str, dg.ExecuteInProcessResult]:
    configs = {
        PROCESS: {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}},
        "example_progress": {"ops": {"example_progress": {"config": {"steps": 2, "seconds_per_step": 0}}}},
        "example_with_args": {"ops": {"example_with_args": {"config": {"name": "Dana"}}}},
    }
    return {
        name: defs.resolve_job_def(name).execute_in_process(
            run_config=configs.get(name),
            instance=instance,
            raise_on_error=False,
            partition_key=last_complete_week(office_today()) if name == CHECK else None,
        )
        for name in names
    }


def decisions_by_job(sessions: sessionmaker[Session]) -> dict[str, set[str]]:
    """Return the decisions of each job."""
    with sessions() as session:
        rows = session.execute(select(ShadowDecision.job, ShadowDecision.decision))
        by_job: dict[str, set[str]] = {}
        for job, decision in rows:
            by_job.setdefault(job, set()).add(decision)
        return by_job


@pytest.mark.usefixtures("shadow_environment_as_app")
def test_every_job_in_shadow_mode_writes_only_its_decisions(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], servers: RecordedSideEffects
) -> None:
    batch_id = create_work_for_every_job(company)
    # Work for auto-heal: a transfer that the legacy worker set to failed and that the bank has.
    false_failure = company.transaction(
        company.batch(status="failed"), company.request(company.case(), 900), 900,
        status="failed", failure_reason="timeout: no answer",
    )  # fmt: skip
    servers.bank.control.insert_transfer(str(false_failure), 900, status="completed")
    before, requests_before = read_all_tables(sessions), len(servers.bank.control.requests())

    assert unexpected_failures(run_all(instance, batch_id)) == {}

    assert changed_tables(before, read_all_tables(sessions)) == {DECISIONS}
    assert {what: list(written) for what, written in servers.write_requests(requests_before).items() if written} == {}
    decisions = {job: decided - {"evaluated"} for job, decided in decisions_by_job(sessions).items()}
    assert (
        decisions.items()
        >= {
            "process_huntington_batch": {"claim", "send", "refuse"},
            "auto_heal_huntington_batches": {"completed", "finish as completed", "read"},
            "dr_auto_approval": {"approve by auto:date", "send email"},
            "rule_based_approval": {"approve by auto:rule:1", "send email"},
            "case_close_reminders": {"send email"},
            "account_balance_reminders": {"send email"},
            "account_balance_check": {"open balance alert", "write Parquet file"},
            "report_generation": {"generate report", "fail report"},
            "aws_status_check": {"post up"},
            "off_site_tracking": {"clear"},
        }.items()
    )

    # A second evaluation makes the same decisions and adds no row.
    recorded = len(read_all_tables(sessions)[DECISIONS])
    assert unexpected_failures(run_all(instance, batch_id, DECIDING)) == {}
    assert len(read_all_tables(sessions)[DECISIONS]) == recorded


@pytest.mark.usefixtures("shadow_environment")
def test_automations_in_shadow_mode_change_only_monitoring_tables(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], servers: RecordedSideEffects
) -> None:
    create_work_for_every_job(company)
    before, requests_before = read_all_tables(sessions), len(servers.bank.control.requests())
    results = evaluate_every_automation(instance)
    assert changed_tables(before, read_all_tables(sessions)) <= MONITORING_TABLES
    written = servers.write_requests(requests_before)
    assert not written["bank"]
    assert not written["internal API"]
    assert not written["storage"]
    launched = {name for name, result in results.items() if getattr(result, "run_requests", None)}
    assert {"huntington_batch_sensor", "pending_dr_sensor", "report_generation_schedule"} <= launched


@pytest.mark.usefixtures("production")
def test_only_jobs_named_in_the_variable_are_in_shadow_mode(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    set_variables(SEEDTRUST_SHADOW_JOBS="dr_auto_approval, report_generation")
    create_work_for_every_job(company)
    before = read_all_tables(sessions)
    for name in ("dr_auto_approval", "off_site_tracking"):
        assert defs.resolve_job_def(name).execute_in_process(instance=instance).success
    assert changed_tables(before, read_all_tables(sessions)) == {
        DECISIONS, "public.users", "public.viewing_drs", "public.viewing_payments",
    }  # fmt: skip


@pytest.mark.usefixtures("production")
def test_mistyped_job_name_stops_every_job_and_names_the_variable(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    set_variables(SEEDTRUST_SHADOW_JOBS="dr_auto_aproval")
    batch_id = create_work_for_every_job(company)
    before = read_all_tables(sessions)
    messages = unexpected_failures(run_all(instance, batch_id, DECIDING))
    assert changed_tables(before, read_all_tables(sessions)) == set()
    assert messages.keys() == set(DECIDING)
    for name in DECIDING:
        assert "SEEDTRUST_SHADOW_JOBS is invalid: the list contains an unknown job at position 1" in messages[name]
        assert "the jobs are process_huntington_batch, auto_heal_huntington_batches" in messages[name]
