"""Looks at every active case's account on Sunday at 01:00: writes all balances as Parquet, and alerts where one is low.

It is an asset by the week that has just ended, with four checks that the books add up.
"""

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.balances import audit
from seedtrust_ops.domain.balances.audit import Violations
from seedtrust_ops.domain.balances.snapshot import take_balances
from seedtrust_ops.domain.shadow_mode import job_dry_runs
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, StorageResource
from seedtrust_ops.orchestration.job_factory import owners_and_tags, single_asset_job
from seedtrust_ops.orchestration.metadata import balance_metadata, offenders_table
from seedtrust_ops.orchestration.schedules import office_today, weekly_schedule
from seedtrust_ops.orchestration.shadow_runs import in_shadow, run_in_shadow
from seedtrust_ops.orchestration.user_facing_failures import RETRIES, user_facing_failures

NAME = "account_balance_check"
WEEKS = dg.WeeklyPartitionsDefinition(start_date="2026-01-04", timezone=get_settings().location.timezone)
PARQUET = "application/vnd.apache.parquet"


class WeekIsOver(SeedTrustError):
    """A week's balances can't be made up afterwards."""


def week_ended_by(day: date) -> str:
    """Return the partition of the last week that has ended on `day`: the date of the Sunday that it began on."""
    return (day - timedelta(days=day.isoweekday() % 7 + 7)).isoformat()


@dg.asset(
    name="account_balances",
    partitions_def=WEEKS,
    group_name="balances",
    kinds={"parquet", "s3"},
    retry_policy=RETRIES,
    # In shadow it is not made.
    output_required=False,
    description="What every active case's account holds, its minimum and its shortfall, as one Parquet file a week.",
    **owners_and_tags(NAME),
)
def account_balances(
    context: dg.AssetExecutionContext, database: DatabaseResource, storage: StorageResource
) -> dg.MaterializeResult[dict[str, Any]] | None:
    """Write all balances to the bucket; open and resolve balance alerts. Twice, it changes nothing more."""
    with user_facing_failures():
        week = _week(context)
        with TemporaryDirectory() as folder:
            path = Path(folder, "account_balances.parquet")
            if in_shadow(NAME):
                run_in_shadow(context, NAME, database, partial(job_dry_runs.balances, path=path))
                return None
            bucket = storage.open()
            sheet = take_balances(database.sessions(), path)
            key = f"balances/{week}/account_balances.parquet"
            bucket.put_file(key, path, PARQUET)
            size = path.stat().st_size
    context.log.info(
        f"{sheet.below_minimum} of {sheet.accounts} accounts are below their minimum; {sheet.alerts.opened} alerts "
        f"were opened and {sheet.alerts.resolved} resolved."
    )
    return dg.MaterializeResult(
        value={
            "week": week,
            "accounts": sheet.accounts,
            "below_minimum": sheet.below_minimum,
            "alerts_opened": sheet.alerts.opened,
            "alerts_resolved": sheet.alerts.resolved,
        },
        metadata=balance_metadata(sheet, where=bucket.place(key), size=size),
    )


def _week(context: dg.AssetExecutionContext) -> str:
    now = week_ended_by(office_today())
    asked = context.partition_key if context.has_partition_key else now
    if asked != now:
        raise WeekIsOver(
            f"The balances of the week from {asked} can't be written now: an account shows only what it holds today. "
            f"Launch the week from {now}."
        )
    return now


def _check(
    name: str, find: Callable[[Session], Violations], *, good: str, bad: str, description: str
) -> dg.AssetChecksDefinition:
    """Return an asset check that passes where `find` finds nobody; `bad` follows the number of those it found."""

    @dg.asset_check(asset=account_balances, name=name, description=description, retry_policy=RETRIES)
    def check(database: DatabaseResource) -> dg.AssetCheckResult:
        with user_facing_failures(), database.sessions()() as session:
            offenders = find(session)
        return dg.AssetCheckResult(
            passed=offenders.count == 0,
            severity=dg.AssetCheckSeverity.ERROR,
            description=good if offenders.count == 0 else f"{offenders.count:,} {bad}",
            metadata={"found": offenders.count}
            | ({"offenders": offenders_table(offenders)} if offenders.count else {}),
        )

    return check


account_balances_checks = [
    _check(
        "balance_equals_ledger",
        audit.ledger_mismatches,
        good="Every balance is the sum of its ledger entries.",
        bad="accounts hold something else than the sum of their ledger entries. Find the entry that is missing or was "
        "booked twice before any money leaves these accounts.",
        description="Every account's balance equals the sum of its ledger entries.",
    ),
    _check(
        "no_negative_balance",
        audit.below_zero,
        good="No account holds less than nothing.",
        bad="accounts hold less than nothing: more was paid out than the case had. Ask its escrow specialist to have "
        "the account funded.",
        description="No account's balance is below zero.",
    ),
    _check(
        "active_case_has_account",
        audit.without_account,
        good="Every active case has an account.",
        bad="active cases have no account, so nothing can be paid for them. Open one in the platform.",
        description="Every active case has an escrow account.",
    ),
    _check(
        "approved_is_covered",
        audit.overcommitted_cases,
        good="Every account covers what is approved and not yet paid.",
        bad="cases have more approved than their account holds; the last of their payments will be refused. Have the "
        "accounts funded, or take approvals back.",
        description="No case's approved and unpaid requests come to more than its account holds.",
    ),
]

account_balance_check = single_asset_job(
    NAME,
    account_balances,
    legacy_name="cron job_account_balance_check",
    description="Writes every active case's balance as Parquet, alerts where one is low, and checks that the books "
    "add up.",
)

account_balance_check_schedule = weekly_schedule(account_balance_check, hour=1, partition_of=week_ended_by)
