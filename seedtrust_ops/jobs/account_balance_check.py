"""Sundays at 01:00: writes the balance of every active case's account to Parquet and opens low-balance alerts.

The asset is partitioned by week (the week that just ended) and has four accounting checks.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.balances import balance_invariants
from seedtrust_ops.domain.balances.balance_invariants import Violations
from seedtrust_ops.domain.balances.snapshot import write_balance_snapshot
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.job_dry_runs import dry_run_balance_check
from seedtrust_ops.errors import InputError
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource, StorageResource
from seedtrust_ops.orchestration.job_factory import job_asset, job_asset_check, single_asset_job
from seedtrust_ops.orchestration.metadata import balance_metadata, violations_table
from seedtrust_ops.orchestration.partitions import partitions_of_run
from seedtrust_ops.orchestration.schedules import office_today, weekly_schedule
from seedtrust_ops.orchestration.shadow_runs import ShadowRun

NAME = "account_balance_check"
ACCOUNTING_CHECK_FAILED = "accounting_check_failed"
WEEKS = dg.WeeklyPartitionsDefinition(start_date="2026-01-04", timezone=get_settings().location.timezone)
PARQUET = "application/vnd.apache.parquet"


class WeekNotAvailable(InputError):
    """The requested week is not the last complete one, and its balances are no longer known."""


def last_complete_week(day: date) -> str:
    """Return the partition key of the last week that ended on or before `day`: the date of its first Sunday."""
    return (day - timedelta(days=day.isoweekday() % 7 + 7)).isoformat()


def _decide(run: ShadowRun) -> Sequence[Decision]:
    with TemporaryDirectory() as folder:
        return dry_run_balance_check(run.sessions, path=Path(folder, "account_balances.parquet"))


@job_asset(
    NAME,
    name="account_balances",
    shadow=_decide,
    partitions_def=WEEKS,
    kinds={"parquet", "s3"},
    description="Balance, minimum balance and shortfall of every active case's account, one Parquet file per week.",
)
def account_balances(
    context: dg.AssetExecutionContext, database: DatabaseResource, storage: StorageResource
) -> dg.MaterializeResult[dict[str, Any]]:
    """Write all balances to S3 and open or resolve low-balance alerts. Safe to run again."""
    week = _week(context)
    bucket = storage.open()
    key = f"balances/{week}/account_balances.parquet"
    with TemporaryDirectory() as folder:
        path = Path(folder, "account_balances.parquet")
        snapshot = write_balance_snapshot(database.sessions(), path)
        bucket.put_file(key, path, PARQUET)
        size = path.stat().st_size
    context.log.info(
        f"Accounts below their minimum balance: {snapshot.below_minimum} of {snapshot.accounts}. "
        f"Low-balance alerts: {snapshot.alerts.opened} opened, {snapshot.alerts.resolved} resolved."
    )
    return dg.MaterializeResult(
        value={
            "week": week,
            "accounts": snapshot.accounts,
            "below_minimum": snapshot.below_minimum,
            "alerts_opened": snapshot.alerts.opened,
            "alerts_resolved": snapshot.alerts.resolved,
        },
        metadata=balance_metadata(snapshot, location=bucket.uri(key), size=size),
    )


def _week(context: dg.AssetExecutionContext) -> str:
    """Return the last complete week; raises `WeekNotAvailable` if the run was launched for any other."""
    available = last_complete_week(office_today())
    past = [week for week in partitions_of_run(context, WEEKS) if week != available]
    if past:
        weeks = f"the week of {past[0]}" if len(past) == 1 else f"{len(past)} weeks from {past[0]} to {past[-1]}"
        raise WeekNotAvailable(
            f"Cannot write the balances for {weeks}: only today's balances are known. Nothing was written. Launch the "
            f"partition {available} alone instead."
        )
    return available


def _accounting_check(
    name: str,
    find: Callable[[Session], Violations],
    *,
    passed: str,
    failed: str,
    next_step: str,
    description: str,
) -> dg.AssetChecksDefinition:
    """Return an asset check that passes if `find` finds no violation; the text `failed` precedes their number.

    A failed check opens an alert, because nobody looks at the checks of a run that succeeded.
    """

    @job_asset_check(account_balances, name=name, description=description, opens_alerts=True)
    def check(database: DatabaseResource) -> dg.AssetCheckResult:
        with database.sessions().begin() as session:
            violations = find(session)
            if violations.count:
                open_alert(
                    session,
                    ACCOUNTING_CHECK_FAILED,
                    name,
                    "HIGH",
                    f"{failed}: {violations.count:,}. {next_step} The check, on the page of asset account_balances, "
                    "lists them.",
                )
            else:
                resolve_alert(session, ACCOUNTING_CHECK_FAILED, name)
        return dg.AssetCheckResult(
            passed=violations.count == 0,
            severity=dg.AssetCheckSeverity.ERROR,
            description=passed if violations.count == 0 else f"{failed}: {violations.count:,}. {next_step}",
            metadata={"Violations": violations.count}
            | ({"First violations": violations_table(violations)} if violations.count else {}),
        )

    return check


account_balances_checks = [
    _accounting_check(
        "balance_equals_ledger",
        balance_invariants.ledger_mismatches,
        passed="Every account balance matches the ledger.",
        failed="Account balances that do not match the ledger",
        next_step="Find the missing or duplicate ledger entry before any money leaves these accounts.",
        description="Every account balance equals the sum of its ledger entries.",
    ),
    _accounting_check(
        "no_negative_balance",
        balance_invariants.negative_balances,
        passed="No account has a negative balance.",
        failed="Accounts with a negative balance, from which more was paid out than the case had",
        next_step="Ask the escrow specialist to get the account funded.",
        description="No account has a negative balance.",
    ),
    _accounting_check(
        "active_case_has_account",
        balance_invariants.active_cases_without_account,
        passed="Every active case has an escrow account.",
        failed="Active cases without an escrow account, so nothing can be paid for them",
        next_step="Open an account in the platform.",
        description="Every active case has an escrow account.",
    ),
    _accounting_check(
        "approved_is_covered",
        balance_invariants.overcommitted_cases,
        passed="Every account covers its approved, unpaid requests.",
        failed="Cases whose approved, unpaid requests exceed their account balance, so the last payments will fail",
        next_step="Get the accounts funded or withdraw approvals.",
        description="A case's approved, unpaid requests do not exceed its account balance.",
    ),
]

account_balance_check = single_asset_job(
    NAME,
    account_balances,
    legacy_name="cron job_account_balance_check",
    description="Write the balance of every active case's account to Parquet, open low-balance alerts, and run four "
    "accounting checks.",
)

account_balance_check_schedule = weekly_schedule(account_balance_check, hour=1, partition_key_for=last_complete_week)

defs = dg.Definitions(
    assets=[account_balances],
    asset_checks=account_balances_checks,
    jobs=[account_balance_check],
    schedules=[account_balance_check_schedule],
)
