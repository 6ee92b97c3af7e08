"""Whether the funding account covers a batch, and what a batch that it does not cover waits for.

One batch at a time is checked. What is covered is recorded in `ops.funding_checks` before the next one is checked, so
that no two batches count the same cents. What a case's account covers is in `preflight`.
See docs/decisions/funding.md.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    Subquery,
    and_,
    exists,
    func,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import run_in_transaction
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.sql_ranges import capped_cents
from seedtrust_ops.domain.transfers.attempts import UNAUTHORIZED_MESSAGE
from seedtrust_ops.domain.transfers.evidence import (
    State,
    as_first_sent,
    has_evidence,
    is_in_flight,
    may_be_at_the_bank,
    needs_inquiry,
)
from seedtrust_ops.domain.transfers.leases import Lease, has_live_lease, is_live, lock_lease
from seedtrust_ops.domain.transfers.legacy_takeover import is_false_failure
from seedtrust_ops.domain.transfers.preflight import MAX_AMOUNT_CENTS
from seedtrust_ops.domain.transfers.sending_context import SendingContext
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.formatting import format_dollars
from seedtrust_ops.ports.bank import Bank, BankInquiryFailed, BankUnauthorized, FundingAccount, FundingAccountUnreadable
from seedtrust_ops.tables import BatchLease, FundingCheck, HuntingtonBatch, HuntingtonTransaction, TransferEvidence

FUNDING_REFUSALS = frozenset({"insufficient_funds", "limit_exceeded"})
"""The bank's codes (422) for what the funding account may not pay now; every other one is about a single transfer."""
MAX_READ_SECONDS = 8.0
"""The bank is asked inside a transaction, which PostgreSQL ends after ten idle seconds (docs/rules.md, section 3)."""
MAX_LOCK_WAIT = "2min"
"""How long a batch may wait for the checks of others."""
RECHECK_INTERVAL_SECONDS = 1.0
MAX_RECHECK_SECONDS = 10.0
"""How long a check is repeated whose outcome may be another in a moment, before the batch goes back to the queue."""


class FundingOutcome(StrEnum):
    """The `outcome` column of `ops.funding_checks`."""

    COVERED = "covered"
    SHORT = "short"
    UNREADABLE = "unreadable"
    """The bank did not say what the funding account holds."""
    REFUSED = "refused"
    """The account had enough when it was read, and then the bank refused a transfer with one of FUNDING_REFUSALS."""


@dataclass(frozen=True)
class FundingDecision:
    """Whether the funding account covers a batch, and from what that was decided; amounts in cents.

    `reserved_cents` is what other transfers may still take from what is available. `being_sent_cents` is the part of it
    that is being sent right now, of which some may be debited already. `available_cents` is None and `detail` is a
    sentence if the outcome is unreadable or refused. `follows_refusal` is whether the batch was last refused.
    """

    outcome: FundingOutcome
    account_id: str
    needed_cents: int = 0
    reserved_cents: int = 0
    being_sent_cents: int = 0
    available_cents: int | None = None
    detail: str | None = None
    is_bank_silent: bool = False
    follows_refusal: bool = False

    @property
    def missing_cents(self) -> int | None:
        """What must be added to the account, or None if that is not known."""
        if self.available_cents is None:
            return None
        return max(self.needed_cents + self.reserved_cents - self.available_cents, 0)

    @property
    def may_change_in_a_moment(self) -> bool:
        """Whether the bank may be back in a moment, or enough be left once responses to other batches are recorded."""
        is_short = self.outcome is FundingOutcome.SHORT
        return self.is_bank_silent or (is_short and (self.missing_cents or 0) <= self.being_sent_cents)

    def describe(self) -> str:
        """Return one or two sentences that say what is needed and what is missing."""
        needed = f"It needs {format_dollars(self.needed_cents)}. " if self.needed_cents else ""
        if self.available_cents is None:
            return f"{needed}{self.detail}"
        account = describe_account(self.account_id, self.available_cents, self.reserved_cents)
        return f"{needed}{account}, so {format_dollars(self.missing_cents or 0)} is missing."


class AwaitsFunding(SeedTrustError):
    """The funding account does not cover a batch: it goes back to the queue. This is no failure of its run."""

    def __init__(self, batch_id: int, decision: FundingDecision) -> None:
        super().__init__(f"Batch {batch_id} waits for funds. {decision.describe()}")
        self.batch_id = batch_id
        self.decision = decision


def describe_account(account_id: str, available_cents: int, reserved_cents: int) -> str:
    """Return what the funding account has, as the beginning of a sentence."""
    has = f"Funding account {account_id} has {format_dollars(available_cents)} available"
    if reserved_cents:
        has += f", of which {format_dollars(reserved_cents)} is reserved for transfers that are being sent"
    return has


def refused(account_id: str, transaction_id: int, code: str) -> FundingDecision:
    """Return the decision that follows from the bank's refusal of a transaction."""
    detail = f"Huntington refused transaction {transaction_id} ({code}), so the rest was not sent."
    return FundingDecision(FundingOutcome.REFUSED, account_id, detail=detail)


async def check_funding(context: SendingContext, bank: Bank, transaction_ids: Collection[int]) -> FundingDecision:
    """Decide whether the funding account covers these transactions of the claimed batch; if so, reserve them.

    The bank is asked again for at most MAX_RECHECK_SECONDS if that may change the decision.

    Raises:
        BankUnauthorized: if the bank does not accept our API key.
        LeaseLost: if this worker no longer holds the batch.
    """
    loop, account_id = asyncio.get_running_loop(), context.run.options.funding_account_id

    async def read_in_time() -> FundingAccount:
        try:
            async with asyncio.timeout(MAX_READ_SECONDS):
                return await bank.get_account(account_id)
        except BankUnauthorized:
            raise BankUnauthorized(UNAUTHORIZED_MESSAGE) from None
        except TimeoutError:
            raise BankInquiryFailed(
                f"Huntington did not answer within {MAX_READ_SECONDS:g} seconds what funding account {account_id} has."
            ) from None

    def read_account() -> FundingAccount:
        return asyncio.run_coroutine_threadsafe(read_in_time(), loop).result()

    check = partial(_check, context=context, transaction_ids=transaction_ids, read_account=read_account)
    last_check_at = time.monotonic() + MAX_RECHECK_SECONDS
    while True:
        decision = await asyncio.to_thread(run_in_transaction, context.sessions, check)
        if not decision.may_change_in_a_moment or time.monotonic() > last_check_at:
            return decision
        await context.cancellation.wait(RECHECK_INTERVAL_SECONDS)
        if context.cancellation.reason is not None:
            return decision


def _check(
    session: Session,
    context: SendingContext,
    transaction_ids: Collection[int],
    read_account: Callable[[], FundingAccount],
) -> FundingDecision:
    session.execute(text(f"set local lock_timeout = '{MAX_LOCK_WAIT}'"))
    hold_lock(session, Lock.FUNDING)
    # Before the bank is asked: a transfer that is made in between counts twice for a moment, and never not at all.
    decision = _read_commitments(session, context, transaction_ids)
    try:
        account = read_account()
    except BankInquiryFailed as error:
        is_silent = not isinstance(error, FundingAccountUnreadable)
        return replace(decision, outcome=FundingOutcome.UNREADABLE, detail=str(error), is_bank_silent=is_silent)
    decision = replace(decision, available_cents=account.available_cents)
    if decision.missing_cents:
        return replace(decision, outcome=FundingOutcome.SHORT)
    lock_lease(session, context.lease)
    _record(session, context.lease, decision, retry_seconds=None)
    return decision


def record_wait(
    session: Session, lease: Lease, decision: FundingDecision, *, retry_seconds: float
) -> FundingDecision | None:
    """Record that the batch, which the caller has just returned to the queue, waits for funds; return what it needs.

    Returns None if it is not in the queue, because nothing in it is pending or a person has changed its status.
    """
    needed = (
        select(_sum(HuntingtonTransaction.amount_cents))
        .select_from(HuntingtonTransaction)
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(
            HuntingtonBatch.id == lease.batch_id,
            HuntingtonBatch.status == "queued",
            HuntingtonTransaction.status == "pending",
        )
    )
    decision = replace(decision, needed_cents=session.scalars(needed).one())
    if not decision.needed_cents:
        return None
    _record(session, lease, decision, retry_seconds=retry_seconds)
    return decision


def _record(session: Session, lease: Lease, decision: FundingDecision, *, retry_seconds: float | None) -> None:
    now = func.clock_timestamp()
    values = {
        "funding_account_id": decision.account_id,
        "lease_token": lease.token,
        "outcome": decision.outcome.value,
        "needed_cents": decision.needed_cents,
        "reserved_cents": decision.reserved_cents,
        "available_cents": decision.available_cents,
        "detail": decision.detail,
        "checked_at": now,
        "not_before": None if retry_seconds is None else now + timedelta(seconds=retry_seconds),
    }
    session.execute(
        insert(FundingCheck)
        .values(batch_id=lease.batch_id, **values)
        .on_conflict_do_update(index_elements=[FundingCheck.batch_id], set_=values)
    )


def _read_commitments(session: Session, context: SendingContext, transaction_ids: Collection[int]) -> FundingDecision:
    """Return what the transactions need and what is reserved for others; the account is not read yet."""
    batch_id = context.lease.batch_id
    needed = (
        select(_sum(as_first_sent("amount_cents")))
        .select_from(HuntingtonTransaction)
        .outerjoin(TransferEvidence, may_be_at_the_bank())
        .where(
            in_array(HuntingtonTransaction.id, transaction_ids),
            HuntingtonTransaction.batch_id == batch_id,
            HuntingtonTransaction.status == "pending",
        )
    )
    reserved = _reserved(batch_id)
    totals = select(
        needed.scalar_subquery(),
        select(_sum(reserved.c.amount_cents)).scalar_subquery(),
        select(_sum(reserved.c.amount_cents)).where(reserved.c.is_being_sent).scalar_subquery(),
        select(FundingCheck.outcome).where(FundingCheck.batch_id == batch_id).scalar_subquery(),
    )
    needed_cents, reserved_cents, being_sent_cents, last_outcome = session.execute(totals).one()
    return FundingDecision(
        FundingOutcome.COVERED,
        context.run.options.funding_account_id,
        needed_cents=needed_cents,
        reserved_cents=reserved_cents,
        being_sent_cents=being_sent_cents,
        follows_refusal=last_outcome == FundingOutcome.REFUSED,
    )


def _sum(amount_cents: SQLColumnExpression[int]) -> ColumnElement[int]:
    """Return the sum of amounts, 0 if there are none; each is at most what the bank makes one transfer of."""
    return capped_cents(func.coalesce(func.sum(func.least(amount_cents, MAX_AMOUNT_CENTS)), 0))


def _reserved(own_batch_id: int) -> Subquery:
    """Return the cents that other transfers may still take from what is available, and whether they are being sent.

    The bank debits a transfer when it accepts it, so one of which the bank has said anything is in its available
    balance. Reserved is what is in flight by evidence and of which it has said nothing, or which it does not find any
    more; and what is pending in a batch whose worker has reserved it and has not crashed since. What the legacy worker
    may have sent counts until auto-heal has recorded evidence of it.
    """
    transaction, evidence = HuntingtonTransaction, TransferEvidence
    is_own_pending = and_(transaction.batch_id == own_batch_id, transaction.status == "pending")
    is_being_sent = and_(transaction.status == "processing", has_live_lease(transaction.batch_id))
    not_known_to_be_debited = or_(
        and_(is_in_flight(), evidence.bank_status.is_(None)),
        and_(evidence.missing_since.is_not(None), evidence.state != State.NOT_MOVED.value),
    )
    by_evidence = (
        select(evidence.amount_cents, func.coalesce(is_being_sent, False).label("is_being_sent"))
        .select_from(evidence)
        .outerjoin(transaction, transaction.id == evidence.transaction_id)
        .where(needs_inquiry(), not_known_to_be_debited, is_own_pending.is_not(true()))
    )
    is_covered = exists().where(
        FundingCheck.batch_id == transaction.batch_id,
        FundingCheck.outcome == FundingOutcome.COVERED.value,
        BatchLease.batch_id == FundingCheck.batch_id,
        BatchLease.token == FundingCheck.lease_token,
        is_live(),
    )
    without_evidence = select(transaction.amount_cents, is_being_sent.label("is_being_sent")).where(
        or_(
            and_(transaction.status == "pending", transaction.batch_id != own_batch_id, is_covered),
            transaction.status == "processing",
            is_false_failure(transaction),
        ),
        ~has_evidence().where(evidence.state != State.NOT_MOVED.value),
    )
    return union_all(by_evidence, without_evidence).subquery("reserved")
