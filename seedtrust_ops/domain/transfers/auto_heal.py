"""Heals what workers left behind: dead leases, abandoned batches, transactions whose truth is open, late returns.

It moves no money: it asks the bank, records what the bank says, and queues again what was never sent.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import resolve_alert
from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.transfers.bank_feed import FeedReading, last_read_at, read_feed
from seedtrust_ops.domain.transfers.batch_claim import doubt_batches_without_lease
from seedtrust_ops.domain.transfers.batch_lifecycle import (
    finish_batches,
    requeue_abandoned_batches,
    unfinished_batches_without_work,
)
from seedtrust_ops.domain.transfers.batch_processor import OpenBank
from seedtrust_ops.domain.transfers.leases import break_expired_leases
from seedtrust_ops.domain.transfers.response_recorder import BANK, tell_of_refused_key
from seedtrust_ops.domain.transfers.status_inquiry import Findings, ask_about_open_transactions, is_open
from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

FEED_AGE = timedelta(minutes=15)
"""How old the last reading of the feed may be before a tick reads it with nothing open (design, section 4)."""


@dataclass
class HealReport:
    """What one healing came to; lists hold transaction or batch ids."""

    abandoned: list[int] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    feed: FeedReading = field(default_factory=FeedReading)
    finished: dict[int, str] = field(default_factory=dict)


def what_needs_healing(session: Session) -> str | None:
    """Return why a healing is due, None where nothing is open and the feed was read lately."""
    open_transactions = session.scalars(select(func.count()).select_from(HuntingtonTransaction).where(is_open())).one()
    if open_transactions:
        return f"{open_transactions} transactions wait for the bank's word"
    processing = session.scalars(
        select(func.count()).select_from(HuntingtonBatch).where(HuntingtonBatch.status == "processing")
    ).one()
    if processing:
        return f"{processing} batches are being processed and may have lost their worker"
    read_at = last_read_at(session)
    now = session.scalars(select(func.clock_timestamp())).one()
    if read_at is None or now - read_at > FEED_AGE:
        return "the bank's feed was last read more than 15 minutes ago"
    return None


def heal(sessions: Sessions, open_bank: OpenBank, *, unknown_grace_seconds: float) -> HealReport:
    """Put right whatever workers left behind and record what the bank says.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the length of the work.
        unknown_grace_seconds: how long a key that the bank does not know is waited for.

    Raises:
        BankUnauthorized: when the bank refuses our API key; an alert is open then.
        BankInquiryFailed: when a question got no answer; all others were asked and recorded first.
    """
    report = HealReport()
    report.abandoned = run_in_transaction(
        sessions, lambda session: reclaim_expired_batches(session, unknown_grace_seconds)
    )
    try:
        run_in_loop(lambda: _ask(sessions, open_bank, unknown_grace_seconds, report))
    except BankUnauthorized:
        run_in_transaction(sessions, tell_of_refused_key)
        raise
    report.finished |= report.findings.finished | report.feed.finished
    if report.findings.unanswered:
        raise report.findings.unanswered[0]
    return report


def reclaim_expired_batches(session: Session, quiet_seconds: float) -> list[int]:
    """End dead leases, doubt what the legacy worker left, and queue what was abandoned; return those batches.

    `quiet_seconds` is how long the legacy worker must have left a batch alone.
    """
    # First: of a batch whose lease is broken it can't be told any more that it was a worker of ours who left it.
    doubt_batches_without_lease(session, quiet_seconds)
    abandoned = requeue_abandoned_batches(session, break_expired_leases(session))
    finish_batches(session, unfinished_batches_without_work(session))
    return abandoned


async def _ask(sessions: Sessions, open_bank: OpenBank, unknown_grace_seconds: float, report: HealReport) -> None:
    async with open_bank() as bank:
        # The feed first: however much is open, every healing reads it.
        unread = None
        try:
            report.feed = await read_feed(sessions, bank)
        except BankInquiryFailed as silence:
            unread = silence
        report.findings = await ask_about_open_transactions(sessions, bank, unknown_grace_seconds=unknown_grace_seconds)
    if unread is not None:
        report.findings.unanswered.append(unread)
    else:
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session: resolve_alert(session, "bank_unauthorized", BANK)
        )
