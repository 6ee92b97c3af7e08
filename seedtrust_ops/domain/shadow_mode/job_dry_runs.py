"""The dry runs of the jobs for approvals, emails, balances, presence and the status check.

The jobs that move money are in `transfer_dry_runs`, report generation in `report_dry_runs`.
"""

from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.by_date import APPROVED_BY_DATE, approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.balances.snapshot import write_balance_snapshot
from seedtrust_ops.domain.component_checks import check_page
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.shadow_mode import decision_reader
from seedtrust_ops.domain.shadow_mode.decisions import Decision, evaluation_window_start
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_approvals, undo_rule_approvals
from seedtrust_ops.domain.shadow_mode.rollback_session import DryRun
from seedtrust_ops.domain.user_presence import clear_presence


def dry_run_approvals_by_date(sessions: Sessions, job: str) -> list[Decision]:
    """Return what `dr_auto_approval` would approve if the legacy cron had not run since the last evaluation."""

    def undo(session: Session) -> None:
        since = evaluation_window_start(session, job)
        undo_approvals(session, like=APPROVED_BY_DATE, since=since, statuses=["approved", "paid"])

    dry_run = DryRun(sessions, undo, decision_reader.read_approvals)
    dry_run.run(partial(run_in_transaction, work=approve_due))
    return dry_run.decisions


def dry_run_approvals_by_rule(sessions: Sessions, job: str, *, zone: tzinfo) -> list[Decision]:
    """Return what `rule_based_approval` would approve if nothing had been approved since the last evaluation."""
    dry_run = DryRun(
        sessions,
        lambda session: undo_rule_approvals(session, since=evaluation_window_start(session, job)),
        decision_reader.read_approvals,
    )
    dry_run.run(partial(run_in_transaction, work=partial(approve_by_rules, zone=zone)))
    return dry_run.decisions


def dry_run_emails(sessions: Sessions, enqueue: Callable[[Session], object]) -> list[Decision]:
    """Return the emails that `enqueue` would add to the outbox."""
    dry_run = DryRun(sessions, read=decision_reader.read_emails)
    dry_run.run(partial(run_in_transaction, work=enqueue))
    return dry_run.decisions


def dry_run_row_count(sessions: Sessions, work: Callable[[Session], int], decision: str) -> list[Decision]:
    """Return how many rows `work` would change, as one decision; none if it would change nothing."""
    rows = DryRun(sessions).run(partial(run_in_transaction, work=work))
    return [Decision("rows", decision, {"rows": rows})] if rows else []


def dry_run_balance_check(sessions: Sessions, *, path: Path) -> list[Decision]:
    """Return the alerts that `account_balance_check` would open and resolve; its file is written only to `path`."""
    dry_run = DryRun(sessions, read=decision_reader.read_balance_alerts)
    snapshot = dry_run.run(lambda dry_sessions: write_balance_snapshot(dry_sessions, path))
    figures = {
        "accounts": snapshot.accounts,
        "below_minimum": snapshot.below_minimum,
        "shortfall_cents": snapshot.shortfall_cents,
    }
    return [*dry_run.decisions, Decision("balances", "write Parquet file", figures)]


def dry_run_presence_cleanup(sessions: Sessions) -> list[Decision]:
    """Return how many rows `off_site_tracking` would clear."""
    cleared = DryRun(sessions).run(partial(run_in_transaction, work=clear_presence))
    counts = {
        "users": cleared.users,
        "viewed_requests": cleared.viewed_requests,
        "viewed_payments": cleared.viewed_payments,
    }
    return [Decision("presence", "clear", counts)]


def dry_run_status_check(fetch: Callable[[], int]) -> list[Decision]:
    """Return what `aws_status_check` would post about CloudFront. S3 is skipped, because its check writes an object."""
    status = check_page(fetch)
    return [Decision(status.component.value, f"post {status.status.value}", {"detail": status.detail})]
