"""A day of transfers: its table, its chart, and the check that passes only if the bank agrees to the cent."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.reconciliation.daily_batches import CHART_DAYS, read_day, read_month
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.jobs.huntington_reconciliation import NAME, day_before, huntington_reconciliation_schedule
from seedtrust_ops.orchestration.metadata import format_date
from seedtrust_ops.orchestration.schedules import office_today
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops.tables import Alert, HuntingtonTransaction, LedgerEntry, UnknownTransfer
from seedtrust_ops_tests.jobs.job_runner import process, range_tags
from seedtrust_ops_tests.jobs.job_runner import run as run_job
from seedtrust_ops_tests.support.all_jobs import LONG_TIMEOUTS
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company

NEW_YORK = "America/New_York"
AMOUNTS = (100_000, 20_050, 3)

pytestmark = pytest.mark.usefixtures("bank_environment")


@pytest.fixture(autouse=True)
def long_timeouts(set_variables: SetVariables) -> None:
    """Use long timeouts, so that no response is late on a busy machine."""
    set_variables(**LONG_TIMEOUTS)


def run(instance: dg.DagsterInstance | None = None, day: str | None = None) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def(NAME)
    return job.execute_in_process(partition_key=day or str(office_today()), raise_on_error=False, instance=instance)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    assert result.success
    (materialization,) = result.asset_materializations_for_node("huntington_transfers")
    return {name: value.value for name, value in materialization.metadata.items()}


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    return evaluations_of(result)["agrees_with_bank"]


def evaluations_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    assert result.success
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def differences_table(evaluation: dg.AssetCheckEvaluation) -> str:
    (name,) = [name for name in evaluation.metadata if name.startswith("Differences")]
    return str(evaluation.metadata[name].value)


def set_row(company: Company, transaction_id: int, **columns: object) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id).values(**columns)
        )


def open_alerts(company: Company) -> list[str]:
    with company.sessions() as session:
        query = select(Alert.subject).where(
            # Somebody may have been paid whom we consider unpaid: that must not wait for the daily digest.
            Alert.rule == "bank_disagrees",
            Alert.severity == "HIGH",
            Alert.resolved_at.is_(None),
        )
        return list(session.scalars(query))


def book(company: Company, transaction_id: int, cents: int, kind: str = "disbursement") -> None:
    account_id = company.case().account_id
    entry = LedgerEntry(account_id=account_id, amount_cents=cents, kind=kind, huntington_transaction_id=transaction_id)
    with company.sessions.begin() as session:
        session.add(entry)


@pytest.fixture
def sent_ids(company: Company) -> list[int]:
    """Transactions of a batch that the bank has completed, in the order of AMOUNTS."""
    batch_id = company.batch(AMOUNTS)
    assert process(batch_id).success
    return [transaction.id for transaction in company.transactions(batch_id)]


def test_day_links_its_batches_to_their_runs_and_the_bank_agrees(
    company: Company, instance: dg.DagsterInstance
) -> None:
    batch_id = company.batch(AMOUNTS)
    company.transaction(batch_id, company.request(company.case(), 500), 500, routing_number="044000025")
    job_result = process(batch_id, instance)
    company.batch([700], status="held")
    result = run(instance)
    day = metadata_of(result)
    assert (day["Batches"], day["Transactions"]) == (2, 5)
    assert (day["Money sent"], day["Money sent (dollars)"]) == ("$1,200.53", 1200.53)
    assert "| failed | 1 | $5.00 |" in str(day["By status"])
    (first, second) = str(day["Batches (first 2 of 2)"]).splitlines()[2:]
    runs = f"/runs?q[0]=tag:seedtrust/batch_id={batch_id}"
    assert first.startswith(f"| [{batch_id}]({runs}) | completed&#95;with&#95;errors |")
    assert (
        f"| 4 | $1,205.53 | 3 ($1,200.53) | 1 | 0 | 0 | [{job_result.run_id[:8]}](/runs/{job_result.run_id}) |" in first
    )
    assert second.endswith("| 0 ($0.00) | 0 | 0 | 1 |  |")
    assert day["Last 30 days at a glance"] == "·" * 29 + "█"
    assert str(day["Last 30 days"]).startswith("![Transfers, last 30 days](data:image/png;base64,")
    evaluation = check_of(result)
    assert evaluation.passed
    assert str(evaluation.description).startswith("The bank agrees on all 5 transactions of ")
    assert str(evaluation.description).endswith(f"{office_today().year}: $1,200.53 was sent.")
    assert open_alerts(company) == []


def test_range_shows_each_day_and_compares_all_of_them(company: Company, sent_ids: list[int]) -> None:
    today = office_today()
    days = [str(today - timedelta(days=back)) for back in (2, 1, 0)]
    earlier = company.transaction(
        company.batch([], status="completed", queued_at=datetime.now(ZoneInfo(NEW_YORK)) - timedelta(days=1)),
        None,
        4_200,
        status="completed",
    )
    set_row(company, sent_ids[1], status="failed", failure_reason="timeout")
    job = defs.resolve_job_def(NAME)
    result = job.execute_in_process(tags=range_tags(days[0], days[-1]), raise_on_error=False)
    assert result.success
    shown = {
        one.partition: (one.metadata["Transactions"].value, one.metadata["Money sent"].value)
        for one in result.asset_materializations_for_node("huntington_transfers")
    }
    assert shown == {days[0]: (0, "$0.00"), days[1]: (1, "$42.00"), days[2]: (3, "$1,000.03")}
    assert result.output_for_node("huntington_transfers") == {"partitions": 3, "first": days[0], "last": days[2]}
    evaluation = check_of(result)
    assert not evaluation.passed
    assert evaluation.metadata["Transactions compared"].value == 4
    table = differences_table(evaluation)
    assert [f"| {one} |" in table for one in (sent_ids[1], earlier)] == [True, True]
    assert sorted(open_alerts(company)) == days[1:]


def recorded_as_failed(company: Company, _bank: BankProcess, transaction_id: int) -> None:
    set_row(company, transaction_id, status="failed", failure_reason="timeout")


def recorded_one_cent_higher(company: Company, _bank: BankProcess, transaction_id: int) -> None:
    set_row(company, transaction_id, amount_cents=AMOUNTS[1] + 1)


def not_recorded_yet(company: Company, _bank: BankProcess, transaction_id: int) -> None:
    set_row(company, transaction_id, status="processing")


def booked_as_one_cent(company: Company, _bank: BankProcess, transaction_id: int) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(LedgerEntry).where(LedgerEntry.huntington_transaction_id == transaction_id).values(amount_cents=-1)
        )


def booked_and_given_back(company: Company, _bank: BankProcess, transaction_id: int) -> None:
    book(company, transaction_id, AMOUNTS[1], "reversal")


@pytest.mark.parametrize(
    ("make_difference", "row"),
    [
        (recorded_as_failed, "failed | $200.50 | $0.00 | $200.50 | completed | $200.50"),
        (recorded_one_cent_higher, "completed | $200.51 | $200.51 | $200.50 | completed | $200.50"),
        (not_recorded_yet, "processing | $200.50 | $0.00 | $200.50 | completed | $200.50"),
        (booked_as_one_cent, "completed | $200.50 | $200.50 | $0.01 | completed | $200.50"),
        (booked_and_given_back, "completed | $200.50 | $200.50 | $0.00 | completed | $200.50"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_difference_fails_the_check_and_opens_one_alert(
    company: Company,
    bank: BankProcess,
    sent_ids: list[int],
    make_difference: Callable[[Company, BankProcess, int], None],
    row: str,
) -> None:
    make_difference(company, bank, sent_ids[1])
    for _ in range(2):
        evaluation = check_of(run())
        assert not evaluation.passed
        assert evaluation.severity is dg.AssetCheckSeverity.ERROR
        (difference,) = differences_table(evaluation).splitlines()[2:]
        assert difference.startswith(f"| {sent_ids[1]} |")
        assert difference.endswith(f"| {row} |")
    assert open_alerts(company) == [str(office_today())]


def test_alert_resolves_once_the_bank_agrees(company: Company, sent_ids: list[int]) -> None:
    set_row(company, sent_ids[0], status="failed", failure_reason="timeout")
    assert not check_of(run()).passed
    set_row(company, sent_ids[0], status="completed", failure_reason=None)
    assert check_of(run()).passed
    assert open_alerts(company) == []


def test_transfer_that_never_reached_the_bank_differs_in_full(company: Company) -> None:
    transaction_id = company.transaction(company.batch(status="completed"), None, 4_200, status="completed")
    evaluation = check_of(run())
    assert not evaluation.passed
    assert f"| {transaction_id} |" in differences_table(evaluation)
    assert differences_table(evaluation).endswith("| completed | $42.00 | $42.00 | $0.00 | unknown | $0.00 |")


def test_returned_transfer_agrees_once_it_is_recorded(company: Company, bank: BankProcess) -> None:
    transaction_id = company.transaction(company.batch(), None, 4_200, status="completed", method="ach")
    key, reference = idempotency_key(transaction_id), str(transaction_id)
    bank.control.insert_transfer(reference, 4_200, idempotency_key=key, status="completed")
    book(company, transaction_id, -4_200)
    assert check_of(run()).passed
    bank.control.return_reference(reference, "R01")
    assert not check_of(run()).passed
    set_row(company, transaction_id, status="returned", failure_reason="R01")
    book(company, transaction_id, 4_200, "reversal")
    evaluation = check_of(run())
    assert evaluation.passed
    assert evaluation.metadata["Sent according to the bank"].value == "$0.00"


def test_legacy_transfers_are_found_by_reference(company: Company, bank: BankProcess) -> None:
    transaction_id = company.transaction(company.batch(status="completed"), None, 4_200, status="completed")
    inserted = bank.control.insert_transfer(str(transaction_id), 4_200, status="completed")
    set_row(company, transaction_id, bank_transfer_id=inserted["id"])
    book(company, transaction_id, -4_200)
    assert check_of(run()).passed


def test_bank_outage_is_reported_and_the_check_does_not_pass(
    company: Company, sent_ids: list[int], set_variables: SetVariables, closed_port: int, no_retry_delays: None
) -> None:
    set_variables(HUNTINGTON_API_URL=f"http://127.0.0.1:{closed_port}")
    result = run()
    assert metadata_of(result)["Transactions"] == 3
    evaluation = check_of(result)
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert str(evaluation.description).startswith("The bank could not be queried, so ")
    assert open_alerts(company) == []


def test_range_names_the_days_that_an_outage_left_unchecked(
    company: Company, sent_ids: list[int], set_variables: SetVariables, closed_port: int, no_retry_delays: None
) -> None:
    set_variables(HUNTINGTON_API_URL=f"http://127.0.0.1:{closed_port}")
    today = office_today()
    tags = range_tags(day_before(today), str(today))
    result = defs.resolve_job_def(NAME).execute_in_process(tags=tags, raise_on_error=False)
    # Yesterday has no transaction to ask the bank about.
    description = str(check_of(result).description)
    assert description.startswith(f"The bank could not be queried, so {format_date(today)} was not checked.")


def test_missing_variable_fails_the_run_and_is_not_a_bank_outage(company: Company, set_variables: SetVariables) -> None:
    set_variables(HUNTINGTON_API_KEY=None)
    result = run()
    assert not result.success
    assert result.asset_materializations_for_node("huntington_transfers")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "HUNTINGTON_API_KEY" in str(failure.step_failure_data.user_failure_data)


def test_day_with_hundreds_of_transactions_is_compared_in_pages(company: Company) -> None:
    company.big_batch(205)
    evaluation = check_of(run())
    assert evaluation.passed
    assert evaluation.metadata["Transactions compared"].value == 205


def test_day_boundaries_follow_the_office_time_zone(company: Company, sessions: sessionmaker[Session]) -> None:
    last_minute = datetime(2026, 3, 7, 23, 59, tzinfo=ZoneInfo(NEW_YORK))
    late, early = (
        company.batch([100], queued_at=last_minute),
        company.batch([2_000], queued_at=last_minute + timedelta(minutes=1)),
    )
    with sessions() as session:
        for batch_id, day in ((late, date(2026, 3, 7)), (early, date(2026, 3, 8))):
            assert [batch.batch_id for batch in read_day(session, day, NEW_YORK).shown] == [batch_id]
        set_row(company, company.transactions(early)[0].id, status="completed")
        month = read_month(session, date(2026, 3, 8), NEW_YORK)
    assert len(month) == CHART_DAYS
    assert (month[0].day, month[-1].day) == (date(2026, 2, 7), date(2026, 3, 8))
    assert {day_totals.day: day_totals.sent_cents for day_totals in month if day_totals.sent_cents} == {
        date(2026, 3, 8): 2_000
    }


def test_unknown_transfers_fail_the_daily_check_until_they_are_explained(company: Company, bank: BankProcess) -> None:
    def check() -> dg.AssetCheckEvaluation:
        return evaluations_of(run())["nothing_unknown_at_bank"]

    assert (check().passed, check().severity) == (False, dg.AssetCheckSeverity.WARN)
    assert run_job("auto_heal_huntington_batches").success
    assert check().passed
    bank_id = bank.control.add_unknown_transfer()["id"]
    assert run_job("auto_heal_huntington_batches").success
    evaluation = check()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "1 transfer over $49,999.00 that nothing explains" in str(evaluation.description)
    assert bank_id.replace("_", "&#95;") in str(evaluation.metadata["Transfers (first 1 of 1)"].value)
    assert run(day=day_before(office_today())).success
    with company.sessions.begin() as session:
        session.execute(update(UnknownTransfer).values(explained_at=datetime.now(ZoneInfo(NEW_YORK))))
    assert check().passed


def test_schedule_requests_yesterday() -> None:
    tick = datetime(2026, 11, 23, 5, tzinfo=ZoneInfo(NEW_YORK))
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=defs.get_repository_def())
    (request,) = huntington_reconciliation_schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-11-22"
