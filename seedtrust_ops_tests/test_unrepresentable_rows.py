"""No row can stop a job by a date, an amount or JSON that PostgreSQL stores and Python cannot represent."""

from datetime import date, datetime

import dagster as dg
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.status.collector import collect_status
from seedtrust_ops.tables.base import PlatformTable
from seedtrust_ops_tests.support.all_jobs import (
    LONG_TIMEOUTS,
    create_work_for_every_job,
    evaluate_every_automation,
    run_every_job,
    unexpected_failures,
)
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

EXTREME_TIMES = ("infinity", "-infinity", "20260-12-01", "0044-03-15 BC", "0026-12-01")
LARGEST = 2**63 - 1
NESTED = f'{{"case_id": {"[" * 2_000}{"]" * 2_000}}}'
LONG_NUMBER = f'{{"case_id": {"9" * 5_000}}}'
POISON_PARAMS = text(
    "update report_requests set params = cast(:params as jsonb) where id = (select min(id) from report_requests "
    "where kind = 'case_ledger' and status = 1 and pg_column_size(params) < 50)"
)


def poison_times(session: Session, time: str) -> None:
    """Set every date and time of the rows of all platform tables that are not poisoned yet."""
    for table in PlatformTable.metadata.sorted_tables:
        columns = [one for one in table.columns if one.type.python_type in (date, datetime)]
        if columns:
            always_set = next(one for one in columns if not one.nullable)
            assignments = ", ".join(f"{one.name} = '{time}'" for one in columns)
            session.execute(
                text(
                    f"update {table.fullname} set {assignments} "
                    f"where {always_set.name} between '2000-01-01' and '9000-01-01'"
                )
            )


def poison_amounts(session: Session) -> None:
    """Let sums and differences exceed a bigint."""
    session.execute(text("update accounts set minimum_balance_cents = :max, balance_cents = -5"), {"max": LARGEST})
    session.execute(text("update disbursement_requests set amount_cents = :max"), {"max": LARGEST})
    session.execute(text("update huntington_transactions set amount_cents = :max"), {"max": LARGEST})


@pytest.mark.timeout(600)  # on a busy machine
@pytest.mark.usefixtures("jobs_environment", "bank_environment", "mail_environment", "external_services")
def test_one_poisoned_row_of_each_kind_stops_no_job_for_the_others(
    company: Company,
    bank: BankProcess,
    mailbox: MailboxProcess,
    instance: dg.DagsterInstance,
    set_variables: SetVariables,
) -> None:
    set_variables(ALERT_EMAILS="ops@office.test", **LONG_TIMEOUTS)
    create_work_for_every_job(company)
    with company.sessions.begin() as session:
        poison_amounts(session)
    for time in EXTREME_TIMES:
        create_work_for_every_job(company)
        with company.sessions.begin() as session:
            poison_times(session, time)
            for params in (NESTED, LONG_NUMBER):
                session.execute(POISON_PARAMS, {"params": params})
    batch_id = create_work_for_every_job(company)
    results = run_every_job(instance, bank, batch_id, company.sessions)
    assert unexpected_failures(results) == {}
    assert company.statuses(batch_id) == ["completed", "completed", "returned", "failed"]
    evaluate_every_automation(instance)
    status = collect_status()
    assert (status.application_error, status.dagster_error) == (None, None)
