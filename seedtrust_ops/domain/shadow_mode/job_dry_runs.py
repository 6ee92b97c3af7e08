"""The looks in shadow of the jobs that approve, remind, clear presence and watch balances."""

from collections.abc import Callable
from datetime import date, datetime, tzinfo
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from seedtrust_ops.domain.approvals.by_date import APPROVED_BY_DATE, approve_due
from seedtrust_ops.domain.approvals.by_rule import approve_by_rules
from seedtrust_ops.domain.balances.snapshot import take_balances
from seedtrust_ops.domain.component_checks import check_page
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.presence import clear_presence
from seedtrust_ops.domain.reminders.balances import remind_of_balances
from seedtrust_ops.domain.reminders.case_close import remind_of_closings
from seedtrust_ops.domain.row_purge import delete_old_attachments, delete_old_events
from seedtrust_ops.domain.shadow_mode import decision_reader
from seedtrust_ops.domain.shadow_mode.decisions import Decision, look_begins
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_approvals, undo_rule_approvals
from seedtrust_ops.domain.shadow_mode.rollback_session import Rehearsal


def approvals_by_date(sessions: Sessions, job: str) -> list[Decision]:
    """Return what `dr_auto_approval` would approve and write now, had the legacy cron not run since the last look."""

    def undo(session: Session) -> None:
        since = look_begins(session, job)
        undo_approvals(session, like=APPROVED_BY_DATE, since=since, statuses=["approved", "paid"])

    rehearsal = Rehearsal(sessions, undo, decision_reader.approvals)
    rehearsal.run(partial(run_in_transaction, work=approve_due))
    return rehearsal.decisions


def approvals_by_rule(sessions: Sessions, job: str, *, zone: tzinfo) -> list[Decision]:
    """Return what `rule_based_approval` would approve and write now, had nothing been approved since the last look."""
    rehearsal = Rehearsal(
        sessions,
        lambda session: undo_rule_approvals(session, since=look_begins(session, job)),
        decision_reader.approvals,
    )
    rehearsal.run(partial(run_in_transaction, work=partial(approve_by_rules, zone=zone)))
    return rehearsal.decisions


def closings(sessions: Sessions, _job: str, *, today: date) -> list[Decision]:
    """Return the letters that `case_close_reminders` would write."""
    rehearsal = Rehearsal(sessions, read=decision_reader.letters)
    rehearsal.run(partial(run_in_transaction, work=partial(remind_of_closings, today=today)))
    return rehearsal.decisions


def balance_reminders(sessions: Sessions, _job: str, *, today: date) -> list[Decision]:
    """Return the letters that `account_balance_reminders` would write."""
    rehearsal = Rehearsal(sessions, read=decision_reader.letters)
    rehearsal.run(partial(run_in_transaction, work=partial(remind_of_balances, today=today)))
    return rehearsal.decisions


def balances(sessions: Sessions, _job: str, *, path: Path) -> list[Decision]:
    """Return the alerts that `account_balance_check` would open and resolve; its file is written to `path` alone."""
    rehearsal = Rehearsal(sessions, read=decision_reader.balance_alerts)
    sheet = rehearsal.run(lambda stage: take_balances(stage, path))
    figures = {
        "accounts": sheet.accounts,
        "below_minimum": sheet.below_minimum,
        "shortfall_cents": sheet.shortfall_cents,
    }
    return [*rehearsal.decisions, Decision("balances", "keep Parquet file", figures)]


def presence(sessions: Sessions, _job: str) -> list[Decision]:
    """Return how much `off_site_tracking` would clear."""
    cleared = Rehearsal(sessions).run(partial(run_in_transaction, work=clear_presence))
    counts = {
        "users": cleared.users,
        "viewed_requests": cleared.viewed_requests,
        "viewed_payments": cleared.viewed_payments,
    }
    return [Decision("presence", "clear", counts)]


def old_rows(sessions: Sessions, _job: str, *, before: datetime) -> list[Decision]:
    """Return how many old events and files `retention` would delete first; Dagster's runs are not looked at."""
    stage = Rehearsal(sessions)
    found = []
    for subject, delete_some in (("old events", delete_old_events), ("old files", delete_old_attachments)):
        rows = stage.run(partial(run_in_transaction, work=partial(delete_some, before=before)))
        if rows:
            found.append(Decision(subject, "delete", {"at least": rows}))
    return found


def outside(_sessions: Sessions, _job: str, *, fetch: Callable[[], int]) -> list[Decision]:
    """Return what `aws_status_check` would post of CloudFront; S3 is left alone, for its check keeps an object."""
    status = check_page(fetch)
    return [Decision(status.component.value, f"post {status.status.value}", {"detail": status.detail})]
