"""Creates work for every job, and runs every job, sensor and schedule on it.

Tests decide what to assert: the data can contain injection payloads, or the jobs can run under a database role.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.reports.request_queue import count_claimable_requests
from seedtrust_ops.jobs.account_balance_check import last_complete_week
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import (
    Account,
    HuntingtonTransaction,
    LedgerEntry,
    ReportRequest,
    ViewingDisbursementRequest,
    ViewingPayment,
)
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.factories import Company

PROCESS, HEAL, CHECK = "process_huntington_batch", "auto_heal_huntington_batches", "account_balance_check"
REPORT = "report_generation"
LONG_TIMEOUTS = {"HUNTINGTON_TIMEOUT_SECONDS": "60", "HUNTINGTON_LEASE_SECONDS": "300"}
"""Long enough for a busy machine: these runs do not test late responses."""
FAILS_ON_PURPOSE = "example_error"
JOBS_FOR_PEOPLE = {"settle_transfer", "explain_transfer"}
REPORTS = ("case_ledger", "disbursements", "account_balances", "huntington_transfers")
FORMATS = ("csv", "xlsx", "pdf")


def create_work_for_every_job(company: Company) -> int:
    """Create the rows; return the id of the queued batch."""
    factory = CaseFactory(company.sessions)
    case = company.case(balance_cents=5_000_000)
    batch_id = company.batch(case=case)
    for method in ("wire", "ach", "ach"):
        company.transaction(batch_id, company.request(case, 12_345), 12_345, method=method)
    # This one fails preflight.
    company.transaction(batch_id, company.request(case, 100), 100, routing_number="044000025")
    due = factory.case(balance_cents=5, minimum_balance_cents=1_000_000, close_on=office_today())
    factory.request(due)
    ruled = factory.case()
    factory.rule(category="travel")
    factory.request(ruled, auto_authorize_at=None)
    admin = factory.user("admin", is_on_site=True)
    with company.sessions.begin() as session:
        for account in (due, ruled):
            balance_cents = session.get_one(Account, account.account_id).balance_cents
            session.add(LedgerEntry(account_id=account.account_id, amount_cents=balance_cents, kind="deposit"))
        transaction = session.scalars(select(HuntingtonTransaction)).first()
        assert transaction is not None
        assert transaction.disbursement_request_id is not None
        session.add(
            ViewingDisbursementRequest(user_id=admin, disbursement_request_id=transaction.disbursement_request_id)
        )
        session.add(ViewingPayment(user_id=admin, huntington_transaction_id=transaction.id))
        for kind in (*REPORTS, "no such report"):
            for format_name in FORMATS:
                params = {"case_id": case.case_id} if kind == "case_ledger" else {}
                session.add(ReportRequest(user_id=admin, kind=kind, format=format_name, params=params))
    return batch_id


def run_every_job(
    instance: dg.DagsterInstance,
    bank: BankProcess,
    batch_id: int,
    sessions: sessionmaker[Session],
) -> dict[str, dg.ExecuteInProcessResult]:
    """Run every job in this process; before healing, the bank settles all transfers and returns all but the first.

    Those by which people intervene are left out: the jobs' role may not.
    """
    names = {job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    jobs = names - JOBS_FOR_PEOPLE
    # The batch first and then healing, so that both have something to do; the rest in any order.
    order = [PROCESS, HEAL, *sorted(jobs - {PROCESS, HEAL})]
    run_configs = _configs(batch_id)
    results = {}
    for name in order:
        if name == HEAL:
            bank.control.settle()
            for transaction_id in _submitted(sessions)[1:]:
                bank.control.return_reference(str(transaction_id), "R03")
        results[name] = _run(name, instance, run_configs.get(name))
    # On a busy machine one run may not generate all reports.
    while results[REPORT].success and _has_waiting_reports(sessions):
        results[REPORT] = _run(REPORT, instance, None)
    return results


def _run(name: str, instance: dg.DagsterInstance, run_config: Any) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(name).execute_in_process(
        run_config=run_config,
        instance=instance,
        raise_on_error=False,
        partition_key=last_complete_week(office_today()) if name == CHECK else None,
    )


def _has_waiting_reports(sessions: sessionmaker[Session]) -> bool:
    with sessions() as session:
        return count_claimable_requests(session) > 0


def _configs(batch_id: int) -> dict[str, Any]:
    return {
        PROCESS: {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}},
        "example_progress": {"ops": {"example_progress": {"config": {"steps": 2, "seconds_per_step": 0}}}},
        "example_with_args": {"ops": {"example_with_args": {"config": {"name": "Dana"}}}},
    }


def _submitted(sessions: sessionmaker[Session]) -> list[int]:
    with sessions() as session:
        query = select(HuntingtonTransaction.id).where(HuntingtonTransaction.status == "submitted")
        return list(session.scalars(query.order_by(HuntingtonTransaction.id)))


def evaluate_every_automation(instance: dg.DagsterInstance) -> dict[str, object]:
    """Evaluate every sensor and every schedule once, as the daemon does; return each result by name."""
    repository = defs.get_repository_def()
    resources = dict(defs.resources or {})
    results: dict[str, object] = {}
    for sensor in repository.sensor_defs:
        with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
            results[sensor.name] = sensor.evaluate_tick(context)
    for schedule in repository.schedule_defs:
        with dg.build_schedule_context(
            instance=instance,
            repository_def=repository,
            resources=resources,
            scheduled_execution_time=datetime.now(UTC),
        ) as context:
            results[schedule.name] = schedule.evaluate_tick(context)
    return results


def queue_another_batch(company: Company) -> int:
    """Queue another batch, for the batch sensor; return its id."""
    return company.batch([777])


def unexpected_failures(results: dict[str, dg.ExecuteInProcessResult]) -> dict[str, str]:
    """Return the error message of each failed job, except the job that fails on purpose."""
    errors: dict[str, str] = {}
    for name, result in results.items():
        events = [event for event in result.all_events if event.is_step_failure]
        if name != FAILS_ON_PURPOSE and not result.success:
            errors[name] = " ".join(str(event.event_specific_data.error) for event in events) or "it failed"
    return errors
