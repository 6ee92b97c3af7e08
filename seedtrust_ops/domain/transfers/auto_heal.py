"""Auto-heal: reclaims expired leases and abandoned batches, and updates open and returned transactions from the bank.

It moves no money: it queries the bank, records the bank's statuses, requeues what was never sent, and queues emails
about what failed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_alert
from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox import count_due_emails
from seedtrust_ops.domain.row_failures import RowFailure, is_row_failure
from seedtrust_ops.domain.transfers.attempts import BANK_SUBJECT, open_unauthorized_alert
from seedtrust_ops.domain.transfers.bank_feed import FeedResult, last_read_at, read_feed
from seedtrust_ops.domain.transfers.batch_lifecycle import (
    finish_batches,
    hold_reopened_batches,
    list_batches_ready_to_finish,
    requeue_abandoned_batches,
)
from seedtrust_ops.domain.transfers.failure_notices import has_failures_to_notify, notify_of_failures
from seedtrust_ops.domain.transfers.leases import WasCanceledByPerson, revoke_expired_leases
from seedtrust_ops.domain.transfers.ledger_posting import alert_unapproved_in_flight
from seedtrust_ops.domain.transfers.legacy_takeover import take_over_legacy_batches
from seedtrust_ops.domain.transfers.status_inquiry import InquiryResult, look_up_open_transactions, open_transaction_ids
from seedtrust_ops.domain.transfers.status_transitions import StatusChange, alert_unsettled_contradictions
from seedtrust_ops.domain.transfers.unreadable_inquiry import count_due, inquire_about_unreadable
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized, OpenBank
from seedtrust_ops.tables import HuntingtonBatch

MAX_FEED_AGE = timedelta(minutes=15)
"""With no open transactions, a tick reads the feed only if the last read is older (docs/rules.md, section 4)."""


@dataclass
class HealReport:
    """The results of one auto-heal run; the lists contain transaction or batch ids."""

    abandoned: list[int] = field(default_factory=list)
    inquiry: InquiryResult = field(default_factory=InquiryResult)
    feed: FeedResult = field(default_factory=FeedResult)
    read_again: FeedResult = field(default_factory=FeedResult)
    """What could not be read earlier."""
    finished: dict[int, str] = field(default_factory=dict)

    @property
    def unrecorded(self) -> dict[int, RowFailure]:
        """Why the bank's answer about a transaction could not be recorded, by its id."""
        return self.feed.unrecorded | self.read_again.unrecorded | self.inquiry.unrecorded

    @property
    def changes(self) -> list[StatusChange]:
        """The transactions whose status changed."""
        return self.feed.changes + self.read_again.changes + self.inquiry.changes


def find_reason_to_heal(session: Session) -> str | None:
    """Return why auto-heal should run, or None if nothing is open or due and the feed was read recently."""
    open_transactions = session.scalars(select(func.count()).select_from(open_transaction_ids().subquery())).one()
    if open_transactions:
        return f"{pluralize(open_transactions, 'transaction')} awaiting bank status"
    processing = session.scalars(
        select(func.count()).select_from(HuntingtonBatch).where(HuntingtonBatch.status == "processing")
    ).one()
    if processing:
        return f"{pluralize(processing, 'batch', 'batches')} processing, possibly without a worker"
    if unreadable := count_due(session):
        return f"{pluralize(unreadable, 'transfer')} at the bank that could not be read"
    if has_failures_to_notify(session):
        return "a transfer failed, and nobody has been notified yet"
    emails = count_due_emails(session)
    if emails:
        return f"{pluralize(emails, 'email')} due"
    read_at = last_read_at(session)
    now = session.scalars(select(func.clock_timestamp())).one()
    if read_at is None or now - read_at > MAX_FEED_AGE:
        return "the bank's feed was last read more than 15 minutes ago"
    return None


def heal(
    sessions: Sessions,
    open_bank: OpenBank,
    *,
    unknown_grace_seconds: float,
    was_canceled_by_person: WasCanceledByPerson,
    alert_emails: Sequence[str] = (),
) -> HealReport:
    """Reclaim what workers abandoned, record the bank's current statuses, and queue emails about failed transfers.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the duration of the work.
        unknown_grace_seconds: how long a key may be unknown to the bank before the transaction is requeued.
        was_canceled_by_person: asked about the last run of a batch that would be requeued. If a person canceled it,
            the batch is held.
        alert_emails: who is emailed about a failed transfer if no user who is responsible for it is active.

    Raises:
        BankUnauthorized: if the bank does not accept our API key; an alert is opened first.
        BankInquiryFailed: if a lookup got no response; all other lookups were completed and recorded first.
    """
    report = HealReport()
    reclaim_error = None
    try:
        report.abandoned = run_in_transaction(
            sessions, lambda session: reclaim_expired_batches(session, unknown_grace_seconds, was_canceled_by_person)
        )
    except DBAPIError as error:
        if not is_row_failure(error):
            raise
        # One batch's row: what the bank says of all transfers is recorded first.
        reclaim_error = error
    try:
        run_in_loop(lambda: _query_bank(sessions, open_bank, unknown_grace_seconds, was_canceled_by_person, report))
    except BankUnauthorized:
        run_in_transaction(sessions, open_unauthorized_alert)
        raise
    finally:
        # Whatever the bank says: what has failed is known.
        run_in_transaction(sessions, lambda session: notify_of_failures(session, alert_emails))
    run_in_transaction(sessions, alert_unapproved_in_flight)
    run_in_transaction(sessions, alert_unsettled_contradictions)
    # Last: what was set back to `pending` above is queued already.
    run_in_transaction(sessions, hold_reopened_batches)
    report.finished |= report.inquiry.finished | report.feed.finished | report.read_again.finished
    if report.inquiry.unanswered:
        raise report.inquiry.unanswered[0]
    if reclaim_error is not None:
        raise reclaim_error
    return report


def reclaim_expired_batches(
    session: Session, quiet_seconds: float, was_canceled_by_person: WasCanceledByPerson
) -> list[int]:
    """Revoke expired leases, take over legacy batches, and requeue abandoned batches; return the requeued ones.

    `quiet_seconds` is how long a batch must have been unchanged before it is taken over from the legacy worker.
    """
    # This comes first: once a lease is revoked, a batch abandoned by our worker looks like one of the legacy worker.
    take_over_legacy_batches(session, quiet_seconds)
    abandoned = requeue_abandoned_batches(session, revoke_expired_leases(session), was_canceled_by_person)
    finish_batches(session, list_batches_ready_to_finish(session))
    return abandoned


async def _query_bank(
    sessions: Sessions,
    open_bank: OpenBank,
    unknown_grace_seconds: float,
    was_canceled_by_person: WasCanceledByPerson,
    report: HealReport,
) -> None:
    async with open_bank() as bank:
        # The feed comes first, so that every run reads it however many transactions are open.
        feed_error = None
        try:
            report.feed = await read_feed(sessions, bank, grace_seconds=unknown_grace_seconds)
        except BankInquiryFailed as error:
            feed_error = error
        try:
            report.read_again = await inquire_about_unreadable(sessions, bank, grace_seconds=unknown_grace_seconds)
        except BankInquiryFailed as error:
            feed_error = feed_error or error
        report.inquiry = await look_up_open_transactions(
            sessions,
            bank,
            unknown_grace_seconds=unknown_grace_seconds,
            was_canceled_by_person=was_canceled_by_person,
        )
    if feed_error is not None:
        report.inquiry.unanswered.append(feed_error)
    else:
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session: resolve_alert(session, "bank_unauthorized", BANK_SUBJECT)
        )
