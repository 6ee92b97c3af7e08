"""Takes over what the legacy worker left: its batches, its false failures, and its transfers at the bank.

That worker has no leases and does not use our idempotency keys. Nothing is guessed: the bank is asked about everything
it may have sent, and unless the bank has exactly one transfer of the same amount, an alert asks a person to decide.
See docs/decisions/legacy-takeover.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import BigInteger, ColumnElement, Exists, and_, exists, false, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.sql_arrays import array_table, in_array
from seedtrust_ops.domain.transfers.leases import ensure_lease_rows
from seedtrust_ops.domain.transfers.status_transitions import NOT_SENT_PREFIX
from seedtrust_ops.domain.transfers.unknown_transfers import explained_by_people
from seedtrust_ops.domain.transfers.unreadable_transfers import record_unreadable
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankTransfer
from seedtrust_ops.tables import (
    BatchLease,
    Cutover,
    HuntingtonBatch,
    HuntingtonTransaction,
    LegacyInquiry,
    TransferEvidence,
)

_FALSE_FAILURE_REASON = "timeout%"
"""How the legacy worker recorded false failures: the bank had not responded in time (docs/rules.md, section 4)."""
MIN_INQUIRY_PAUSE = timedelta(hours=1)
MAX_INQUIRY_PAUSE = timedelta(days=30)
"""How long after an inquiry the bank is asked again about a failure that it did not know (docs/rules.md, section 4)."""


def was_started_by_legacy_worker(session: Session, batch: HuntingtonBatch) -> bool:
    """Return whether the legacy worker started this queued batch, before our worker did or after ours released it."""
    lease = session.get(BatchLease, batch.id)
    return batch.started_at is not None and (lease is None or lease.acquired_at < batch.started_at)


def is_held_by_legacy_worker() -> ColumnElement[bool]:
    """Return the SQL condition that a `processing` batch is held by the legacy worker, or was when that crashed.

    Our workers leave no pending transaction in a batch that stays `processing`, unless they crash, and then the lease
    has a token.
    """
    lease = exists().where(BatchLease.batch_id == HuntingtonBatch.id)
    pending = exists().where(
        HuntingtonTransaction.batch_id == HuntingtonBatch.id, HuntingtonTransaction.status == "pending"
    )
    return and_(
        HuntingtonBatch.status == "processing",
        or_(~lease, and_(~lease.where(BatchLease.token.is_not(None)), pending)),
    )


def take_over_legacy_batches(session: Session, quiet_seconds: float, only_batch_id: int | None = None) -> list[int]:
    """Take over batches that the legacy worker (which has no leases) left in `processing`.

    It is unknown which of their pending transactions that worker had sent when it crashed, so all of them become
    `processing`: the bank is asked before any is sent again.

    Returns:
        The batches that were taken over: those unchanged for `quiet_seconds`.
    """
    last_change = (
        select(func.max(HuntingtonTransaction.updated_at))
        .where(HuntingtonTransaction.batch_id == HuntingtonBatch.id)
        .scalar_subquery()
    )
    query = select(HuntingtonBatch.id).where(
        is_held_by_legacy_worker(),
        func.greatest(HuntingtonBatch.created_at, HuntingtonBatch.started_at, last_change)
        <= func.clock_timestamp() - timedelta(seconds=quiet_seconds),
    )
    if only_batch_id is not None:
        query = query.where(HuntingtonBatch.id == only_batch_id)
    # What another application holds locked waits for the next run.
    locked = query.order_by(HuntingtonBatch.id).with_for_update(skip_locked=only_batch_id is None)
    batch_ids = list(session.scalars(locked))
    require_bank_inquiry(session, batch_ids)
    return batch_ids


def require_bank_inquiry(session: Session, batch_ids: Collection[int]) -> None:
    """Set the batches' pending transactions to `processing`, so that the bank is asked before any of them is sent."""
    ensure_lease_rows(session, batch_ids)
    session.execute(
        update(HuntingtonTransaction)
        .where(in_array(HuntingtonTransaction.batch_id, batch_ids), HuntingtonTransaction.status == "pending")
        .values(status="processing")
    )


def is_false_failure(transaction: type[HuntingtonTransaction]) -> ColumnElement[bool]:
    """Return the SQL condition that a failure is not from the bank, but from a timeout of the legacy worker.

    If the bank's transfer is known, the reason is the bank's own, whatever its text.
    """
    return and_(
        transaction.status == "failed",
        # Only the beginning: PostgreSQL cannot fold the case of a text of some hundred MB, and the query would fail.
        func.left(transaction.failure_reason, len(_FALSE_FAILURE_REASON)).ilike(_FALSE_FAILURE_REASON),
        transaction.bank_transfer_id.is_(None),
    )


def was_begun_before_cutover() -> ColumnElement[bool]:
    """Return the SQL condition that the legacy worker may have begun a transaction; the query joins its batch.

    Its batch was started, or the transaction was no longer pending, when `seedtrust-ops migrate` recorded the cutover.
    Before the cutover, every transaction is one that the legacy worker may have begun.
    """
    cutover = select(Cutover.at).where(Cutover.job == "process_huntington_batch").scalar_subquery()
    return func.coalesce(
        or_(
            cutover.is_(None),
            HuntingtonBatch.started_at < cutover,
            and_(HuntingtonTransaction.status != "pending", HuntingtonTransaction.updated_at < cutover),
        ),
        false(),
    )


def is_unproven_failure() -> ColumnElement[bool]:
    """Return the SQL condition that only the legacy worker, or a person, says that a transaction failed.

    That is a failure in a batch that a worker has started, without evidence, and not our own refusal to send it.
    """
    transaction = HuntingtonTransaction
    # Aliases, because the query may join both tables too.
    evidence, batch = aliased(TransferEvidence), aliased(HuntingtonBatch)
    return and_(
        transaction.status == "failed",
        func.left(func.coalesce(transaction.failure_reason, ""), len(NOT_SENT_PREFIX)) != NOT_SENT_PREFIX,
        transaction.bank_transfer_id.is_(None),
        ~exists().where(evidence.transaction_id == transaction.id),
        exists().where(batch.id == transaction.batch_id, batch.started_at.is_not(None)),
    )


def was_asked_about() -> Exists:
    """Return the SQL condition that the bank did not know an unproven failure when it was asked about it."""
    return exists().where(LegacyInquiry.transaction_id == HuntingtonTransaction.id)


def is_inquiry_due() -> ColumnElement[bool]:
    """Return the SQL condition that the bank must be asked about an unproven failure, for the first time or again."""
    return and_(is_unproven_failure(), ~was_asked_about().where(LegacyInquiry.next_inquiry_at > func.now()))


def record_legacy_inquiries(session: Session, transaction_ids: Collection[int]) -> None:
    """Record that the bank does not know these unproven failures; it is asked again later, less and less often."""
    if not transaction_ids:
        return
    asked = array_table("asked", [("id", BigInteger())], [(one,) for one in sorted(transaction_ids)])
    statement = insert(LegacyInquiry).from_select(
        ["transaction_id", "inquiries", "next_inquiry_at"], select(asked.c.id, 1, func.now() + MIN_INQUIRY_PAUSE)
    )
    # Doubled each time; 2 to the power of 10 hours is more than the longest pause.
    pause = MIN_INQUIRY_PAUSE * func.power(2, func.least(LegacyInquiry.inquiries, 10))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[LegacyInquiry.transaction_id],
            set_={
                "inquiries": LegacyInquiry.inquiries + 1,
                "next_inquiry_at": func.now() + func.least(pause, MAX_INQUIRY_PAUSE),
            },
        )
    )


@dataclass(frozen=True)
class LegacyTransaction:
    """A transaction that the bank does not know by our key; `bank_transfer_id` is set if its transfer is known.

    `may_be_legacy` is whether the legacy worker may have begun it: only then may its reference and amount match. If
    not, a transfer with its reference was made by another system, or the bank has lost our key (`is_sent_by_us`).
    """

    id: int
    amount_cents: int
    bank_transfer_id: str | None = None
    is_sent_by_us: bool = False
    may_be_legacy: bool = True


async def match_by_reference(
    sessions: Sessions, bank: Bank, transactions: Sequence[LegacyTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Look up the transfers whose reference is a transaction's id.

    Transfers that a person has explained as something else are left out.

    Returns:
        For each transaction with exactly one transfer of the same amount, that transfer; and the ambiguous
        transactions, because several transfers match, only other amounts match, one of them cannot be read, or the
        legacy worker did not begin the transaction before the cutover. An alert is open for each ambiguous one.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
    """
    found: dict[int, BankTransfer] = {}
    ambiguous: dict[LegacyTransaction, list[BankTransfer]] = {}
    unreadable: set[int] = set()
    for start in range(0, len(transactions), LOOKUP_PAGE_SIZE):
        page = transactions[start : start + LOOKUP_PAGE_SIZE]
        by_reference: defaultdict[str, dict[str, BankTransfer]] = defaultdict(dict)
        answer = await bank.find_by_references([str(one.id) for one in page])
        if answer.unreadable:
            unreadable |= {int(one.reference) for one in answer.unreadable if one.reference is not None}
            await asyncio.to_thread(
                run_in_transaction,
                sessions,
                lambda session, answer=answer: record_unreadable(session, answer.unreadable),
            )
        for transfer in answer.readable:
            # A transfer that changes while the bank's pages are read appears on two of them.
            by_reference[transfer.reference][transfer.id] = transfer
        explained = await asyncio.to_thread(
            _explained, sessions, [key for all_ in by_reference.values() for key in all_]
        )
        for one in page:
            if one.id in unreadable:
                continue
            transfers = [
                transfer
                for transfer in by_reference[str(one.id)].values()
                if explained.get(transfer.id, one.id) == one.id
            ]
            known = [transfer for transfer in transfers if one.id == explained.get(transfer.id)] or [
                transfer for transfer in transfers if transfer.id == one.bank_transfer_id
            ]
            same_amount = known or [transfer for transfer in transfers if transfer.amount_cents == one.amount_cents]
            if len(same_amount) == 1 and not one.is_sent_by_us and (known or one.may_be_legacy):
                found[one.id] = same_amount[0]
            elif transfers:
                ambiguous[one] = transfers
    if ambiguous:
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session: _open_ambiguous_alerts(session, ambiguous)
        )
    return found, unreadable | {one.id for one in ambiguous}


def _explained(sessions: Sessions, bank_transfer_ids: Collection[str]) -> Mapping[str, int | None]:
    if not bank_transfer_ids:
        return {}
    with sessions() as session:
        return explained_by_people(session, bank_transfer_ids)


def _open_ambiguous_alerts(session: Session, ambiguous: dict[LegacyTransaction, list[BankTransfer]]) -> None:
    for one, transfers in ambiguous.items():
        listed = ", ".join(
            f"{transfer.id} ({transfer.amount_cents} cents, {transfer.status})" for transfer in transfers
        )
        if one.is_sent_by_us:
            origin = "was sent under our idempotency key, which the bank does not know; instead"
        elif one.may_be_legacy:
            origin = "was sent by the legacy worker, and"
        else:
            origin = "was begun by neither our worker nor, before the cutover, the legacy one, but"
        is_legacy = one.may_be_legacy and not one.is_sent_by_us
        why = "No single one has its amount" if is_legacy else "It is unclear whether any is the same payment"
        open_alert(
            session,
            "transfer_ambiguous",
            f"transaction {one.id}",
            "CRITICAL",
            f"Transaction {one.id} {origin} the bank has these transfers with its id as reference: {listed}. {why}. "
            "Nothing was recorded and nothing will be resent. Ask Huntington which transfer belongs to this "
            "transaction; run `seedtrust-ops transfers explain` for each that does not, then `seedtrust-ops transfers "
            f"settle {one.id}`.",
        )
