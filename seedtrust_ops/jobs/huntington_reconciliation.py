"""Shows, every morning at 05:00, yesterday's batches of transfers, and lays them beside the bank's word, cent by cent.

It is an asset by the day, with the check that the bank agrees. It moves no money and changes no transaction.
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.reconciliation.bank_comparison import Reconciliation, reconcile_day
from seedtrust_ops.domain.reconciliation.chart import read_month
from seedtrust_ops.domain.reconciliation.daily_batches import read_day
from seedtrust_ops.job_policies import job_policy
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, HuntingtonResource
from seedtrust_ops.orchestration.job_factory import owners_and_tags, single_asset_job
from seedtrust_ops.orchestration.metadata import day_metadata, dollars, format_date, reconciliation_metadata
from seedtrust_ops.orchestration.schedules import daily_schedule, office_today
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures
from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized

NAME = "huntington_reconciliation"
DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone=get_settings().location.timezone, end_offset=1)
"""Today's too, so that people can look at a day that is not over."""


def day_before(day: date) -> str:
    """Return the partition of the day before `day`."""
    return (day - timedelta(days=1)).isoformat()


@dg.asset(
    name="huntington_transfers",
    partitions_def=DAYS,
    group_name=job_policy(NAME).group.value,
    kinds={"postgres", "matplotlib"},
    retry_policy=RETRIES,
    description="The batches of transfers that were queued on a day: what was sent, what failed, which run had them, "
    "and thirty days as a picture.",
    **owners_and_tags(NAME),
)
def huntington_transfers(
    context: dg.AssetExecutionContext, database: DatabaseResource
) -> dg.MaterializeResult[dict[str, Any]]:
    """Count a day's batches, and draw the thirty days up to it."""
    day, zone = _day(context), get_settings().location.timezone
    with user_facing_failures(), database.sessions()() as session:
        # Totals and rows are read by several statements, and must be of one moment.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        seen = read_day(session, day, zone)
        month = read_month(session, day, zone)
    context.log.info(
        f"{seen.batches} batches with {seen.transactions} transactions were queued on {day}; "
        f"{dollars(seen.gone_cents)} of that was sent."
    )
    return dg.MaterializeResult(
        value={
            "day": day.isoformat(),
            "batches": seen.batches,
            "transactions": seen.transactions,
            "sent_cents": seen.gone_cents,
        },
        metadata=day_metadata(seen, month),
    )


@dg.asset_check(
    asset=huntington_transfers,
    name="agrees_with_bank",
    retry_policy=RETRIES,
    description="What left the bank for each of the day's transactions is what we believe, to the cent. It does not "
    "pass where the bank can't be asked.",
)
def huntington_transfers_check(
    context: dg.AssetCheckExecutionContext, database: DatabaseResource, huntington: HuntingtonResource
) -> dg.AssetCheckResult:
    """Ask the bank about every transaction of a day."""
    day = _day(context.op_execution_context)
    with user_facing_failures():
        huntington.settings  # noqa: B018  a missing variable must stop the job, not look like a bank that is down
        try:
            compared = reconcile_day(database.sessions(), huntington.open, day, get_settings().location.timezone)
        except (BankInquiryFailed, BankUnauthorized) as trouble:
            return _unasked(str(trouble), day)
    return _verdict(compared, day)


def _day(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> date:
    """Return the day that was asked for, yesterday where none was."""
    return date.fromisoformat(context.partition_key if context.has_partition_key else day_before(office_today()))


def _verdict(compared: Reconciliation, day: date) -> dg.AssetCheckResult:
    if compared.agrees:
        said = (
            f"The bank agrees on all {compared.transactions} transactions of {format_date(day)}: "
            f"{dollars(compared.ours_cents)} was sent."
        )
    else:
        said = (
            f"The bank says otherwise of {len(compared.differences)} of the {compared.transactions} transactions of "
            f"{format_date(day)}. See the last run of auto_heal_huntington_batches; what differs after that is to be "
            "settled with Huntington."
        )
    return dg.AssetCheckResult(
        passed=compared.agrees,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said,
        metadata=reconciliation_metadata(compared, day),
    )


def _unasked(trouble: str, day: date) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"The bank could not be asked, so nothing is known of {format_date(day)}: {trouble} Make "
        "that day again once the bank answers.",
    )


huntington_reconciliation = single_asset_job(
    NAME,
    huntington_transfers,
    legacy_name="none",
    description="Shows a day's batches of transfers, and checks them against the bank's word to the cent.",
)

huntington_reconciliation_schedule = daily_schedule(huntington_reconciliation, hour=5, partition_of=day_before)
