"""Daily at 05:00: shows yesterday's transfer batches and compares them with the bank, to the cent.

It materializes a daily-partitioned asset with the checks `agrees_with_bank` and `nothing_unknown_at_bank`. It moves no
money and changes no status.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.reconciliation.bank_comparison import Reconciliation, add_up, reconcile_day
from seedtrust_ops.domain.reconciliation.daily_batches import read_day, read_month
from seedtrust_ops.domain.reconciliation.unknown_at_bank import UnknownAtBank, read_unknown
from seedtrust_ops.formatting import format_dollars, pluralize
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import job_asset, job_asset_check, single_asset_job
from seedtrust_ops.orchestration.metadata import (
    format_days,
    reconciliation_metadata,
    transfer_day_metadata,
    unknown_at_bank_metadata,
)
from seedtrust_ops.orchestration.partitions import materialize_each, partitions_of_run
from seedtrust_ops.orchestration.schedules import daily_schedule, office_today
from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized

NAME = "huntington_reconciliation"
DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone=get_settings().location.timezone, end_offset=1)
"""Includes today, so that a person can view a day that is not over."""


def day_before(day: date) -> str:
    """Return the partition of the day before `day`."""
    return (day - timedelta(days=1)).isoformat()


@job_asset(
    NAME,
    name="huntington_transfers",
    shadow=None,
    partitions_def=DAYS,
    kinds={"postgres", "matplotlib"},
    description="The transfer batches queued on a day: what was sent, what failed, which run processed them, and a "
    "chart of thirty days.",
)
def huntington_transfers(
    context: dg.AssetExecutionContext, database: DatabaseResource
) -> dg.MaterializeResult[dict[str, Any]]:
    """Count each day's batches, and draw a chart of the thirty days up to it."""
    days = [day.isoformat() for day in _days(context)]
    return materialize_each(context, days, lambda day: _show_day(context, database, date.fromisoformat(day)))


def _show_day(
    context: dg.AssetExecutionContext, database: DatabaseResource, day: date
) -> dg.MaterializeResult[dict[str, Any]]:
    zone = get_settings().location.timezone
    with database.sessions()() as session:
        # Several statements read totals and rows, so they must see the same snapshot.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        summary = read_day(session, day, zone)
        month = read_month(session, day, zone)
    context.log.info(
        f"Queued on {day}: {pluralize(summary.batches, 'batch', 'batches')} with "
        f"{pluralize(summary.transactions, 'transaction')}; {format_dollars(summary.sent_cents)} was sent."
    )
    return dg.MaterializeResult(
        value={
            "day": day.isoformat(),
            "batches": summary.batches,
            "transactions": summary.transactions,
            "sent_cents": summary.sent_cents,
        },
        metadata=transfer_day_metadata(summary, month),
    )


@job_asset_check(
    huntington_transfers,
    name="agrees_with_bank",
    opens_alerts=True,
    description="For each of the day's transactions, the bank sent the amount that SeedTrust recorded and booked, to "
    "the cent. "
    "Does not pass if the bank can't be queried.",
)
def huntington_transfers_check(
    context: dg.AssetCheckExecutionContext, database: DatabaseResource, huntington: HuntingtonResource
) -> dg.AssetCheckResult:
    """Compare every transaction of each day with the bank."""
    days, zone = _days(context.op_execution_context), get_settings().location.timezone
    huntington.settings  # noqa: B018  a missing variable must stop the job, not look like a bank that is down
    compared: list[Reconciliation] = []
    try:
        for day in days:
            compared.append(reconcile_day(database.sessions(), huntington.open, day, zone))  # noqa: PERF401
    except (BankInquiryFailed, BankUnauthorized) as error:
        return _not_checked(str(error), days[len(compared) :])
    return _check_result(add_up(compared), days)


@job_asset_check(
    huntington_transfers,
    name="nothing_unknown_at_bank",
    description="Every transfer that the bank has reported so far is explained: by a transaction, or by a person. Does "
    "not pass if auto-heal has not read the bank's feed for an hour.",
)
def nothing_unknown_check(context: dg.AssetCheckExecutionContext, database: DatabaseResource) -> dg.AssetCheckResult:
    """Count the transfers at the bank that nothing explains, whatever their day."""
    with database.sessions()() as session:
        unknown = read_unknown(session)
    return dg.AssetCheckResult(
        passed=unknown.is_current and not unknown.transfers,
        severity=dg.AssetCheckSeverity.ERROR if unknown.transfers else dg.AssetCheckSeverity.WARN,
        description=_describe_unknown(unknown),
        metadata=unknown_at_bank_metadata(unknown),
    )


def _describe_unknown(unknown: UnknownAtBank) -> str:
    if unknown.transfers:
        return (
            f"The bank has {pluralize(len(unknown.transfers), 'transfer')} over {format_dollars(unknown.amount_cents)} "
            "that nothing explains. Ask Huntington who ordered them, then run `seedtrust-ops transfers explain` for "
            "each."
        )
    if not unknown.is_current:
        return (
            "The bank's feed has not been read for an hour, so it is not known what the bank has. See the last runs of "
            "auto_heal_huntington_batches."
        )
    return "Every transfer that the bank has reported is explained."


def _days(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> list[date]:
    """Return the requested days, or yesterday if none was requested."""
    keys = partitions_of_run(context, DAYS) or [day_before(office_today())]
    return [date.fromisoformat(key) for key in keys]


def _check_result(compared: Reconciliation, days: Sequence[date]) -> dg.AssetCheckResult:
    if compared.agrees:
        description = (
            f"The bank agrees on all {compared.transactions} transactions of {format_days(days)}: "
            f"{format_dollars(compared.local_cents)} was sent."
        )
    else:
        description = (
            f"The bank or the ledger disagrees on {len(compared.differences)} of {compared.transactions} transactions "
            f"of {format_days(days)}. See the last run of auto_heal_huntington_batches; resolve remaining differences "
            "with Huntington."
        )
    return dg.AssetCheckResult(
        passed=compared.agrees,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata=reconciliation_metadata(compared, days),
    )


def _not_checked(error: str, days: Sequence[date]) -> dg.AssetCheckResult:
    was, these = ("was", "this day") if len(days) == 1 else ("were", "these days")
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"The bank could not be queried, so {format_days(days)} {was} not checked. {error} Materialize "
        f"{these} again once the bank responds.",
    )


huntington_reconciliation = single_asset_job(
    NAME,
    huntington_transfers,
    description="Show a day's transfer batches and compare them with the bank to the cent.",
)

huntington_reconciliation_schedule = daily_schedule(huntington_reconciliation, hour=5, partition_key_for=day_before)

defs = dg.Definitions(
    assets=[huntington_transfers],
    asset_checks=[huntington_transfers_check, nothing_unknown_check],
    jobs=[huntington_reconciliation],
    schedules=[huntington_reconciliation_schedule],
)
