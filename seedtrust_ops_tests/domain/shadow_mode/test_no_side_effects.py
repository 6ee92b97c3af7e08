"""A job in shadow records what it would have done and touches nothing else, whatever there is to do."""

from collections.abc import Sequence

import dagster as dg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.account_balance_check import last_complete_week
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.tables import ShadowDecision
from seedtrust_ops_tests.domain.shadow_mode.side_effects import Outside, changed, contents
from seedtrust_ops_tests.support.every_job import CHECK, PROCESS, unexpected_failures, evaluate_every_automation, create_work_for_every_job
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import SetVariables

DECISIONS = "ops.shadow_decisions"
BOOKKEEPING = {"public.job_runs", "public.errors", "ops.alerts", "ops.outgoing_events", "ops.notifications"}
"""What monitoring keeps and tells of our own runs; these go on in shadow (docs/cutover.md)."""


EVERY_JOB = [job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
DECIDING = ["dr_auto_approval", "off_site_tracking", PROCESS, CHECK]


def run_all(
    instance: dg.DagsterInstance, batch_id: int, names: Sequence[str] = EVERY_JOB
) -> dict[str, dg.ExecuteInProcessResult]:
    configs = {
        PROCESS: {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}},
        "example_progress": {"ops": {"example_progress": {"config": {"steps": 2, "seconds_a_step": 0}}}},
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


def decided(sessions: sessionmaker[Session]) -> dict[str, set[str]]:
    """What each job would have done."""
    with sessions() as session:
        rows = session.execute(select(ShadowDecision.job, ShadowDecision.decision))
        by_job: dict[str, set[str]] = {}
        for job, decision in rows:
            by_job.setdefault(job, set()).add(decision)
        return by_job


@pytest.mark.usefixtures("in_shadow_as_app")
def test_every_job_in_shadow_decides_and_touches_nothing_but_its_decisions(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], servers: Outside
) -> None:
    batch_id = create_work_for_every_job(company)
    # What healing has to do: a transfer that the legacy worker took for failed, and that the bank has.
    false_failure = company.transaction(
        company.batch(status="failed"), company.request(company.case(), 900), 900,
        status="failed", failure_reason="timeout: no answer",
    )  # fmt: skip
    servers.bank.control.plant_transfer(str(false_failure), 900, status="completed")
    before, asked_before = contents(sessions), len(servers.bank.control.requests())

    assert unexpected_failures(run_all(instance, batch_id)) == {}

    assert changed(before, contents(sessions)) == {DECISIONS}
    assert {what: list(written) for what, written in servers.writing(asked_before).items() if written} == {}
    assert {job: words - {"looked"} for job, words in decided(sessions).items()} == {
        "process_huntington_batch": {"claim", "send", "refuse"},
        "auto_heal_huntington_batches": {"completed", "finish as completed", "read"},
        "dr_auto_approval": {"approve by auto:date", "write letter"},
        "rule_based_approval": {"approve by auto:rule:1", "write letter"},
        "case_close_reminders": {"write letter"},
        "account_balance_reminders": {"write letter"},
        "account_balance_check": {"open balance alert", "keep Parquet file"},
        "report_generation": {"make report", "fail report"},
        "aws_status_check": {"post up"},
        "off_site_tracking": {"clear"},
        "retention": set(),
    }

    # Looked at again, it is decided again, and that is no row more.
    recorded = len(contents(sessions)[DECISIONS])
    assert unexpected_failures(run_all(instance, batch_id, DECIDING)) == {}
    assert len(contents(sessions)[DECISIONS]) == recorded


@pytest.mark.usefixtures("is_in_shadow_mode")
def test_automations_in_shadow_touch_nothing_but_the_records_of_our_own_runs(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], servers: Outside
) -> None:
    create_work_for_every_job(company)
    before, asked_before = contents(sessions), len(servers.bank.control.requests())
    asked = evaluate_every_automation(instance)
    assert changed(before, contents(sessions)) <= BOOKKEEPING
    written = servers.writing(asked_before)
    assert not written["bank"]
    assert not written["internal API"]
    assert not written["storage"]
    launched = {name for name, one in asked.items() if getattr(one, "run_requests", None)}
    assert {"huntington_batch_sensor", "pending_dr_sensor", "report_generation_schedule"} <= launched


@pytest.mark.usefixtures("production")
def test_a_job_named_in_the_variable_is_in_shadow_and_the_others_are_live(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], change: SetVariables
) -> None:
    change(SEEDTRUST_SHADOW_JOBS="dr_auto_approval, report_generation")
    create_work_for_every_job(company)
    before = contents(sessions)
    for name in ("dr_auto_approval", "off_site_tracking"):
        assert defs.resolve_job_def(name).execute_in_process(instance=instance).success
    assert changed(before, contents(sessions)) == {
        DECISIONS, "public.users", "public.viewing_drs", "public.viewing_payments",
    }  # fmt: skip


@pytest.mark.usefixtures("production")
def test_a_mistyped_name_stops_every_job_and_names_the_variable_and_the_jobs(
    instance: dg.DagsterInstance, company: Company, sessions: sessionmaker[Session], change: SetVariables
) -> None:
    change(SEEDTRUST_SHADOW_JOBS="dr_auto_aproval")
    batch_id = create_work_for_every_job(company)
    before = contents(sessions)
    said = unexpected_failures(run_all(instance, batch_id, DECIDING))
    assert changed(before, contents(sessions)) == set()
    assert said.keys() == set(DECIDING)
    for name in DECIDING:
        assert "SEEDTRUST_SHADOW_JOBS is invalid: the list contains an unknown job at position 1" in said[name]
        assert "the jobs are process_huntington_batch, auto_heal_huntington_batches" in said[name]
