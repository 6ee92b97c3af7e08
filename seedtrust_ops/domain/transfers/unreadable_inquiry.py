"""Asks the bank again about transfers that could not be read, with growing pauses, until they can be.

Where they come from, and what they block meanwhile, is in `unreadable_transfers`.
See docs/decisions/unreadable-transfers.md.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.row_failures import RowByRow
from seedtrust_ops.domain.transfers.bank_feed import FeedResult, record_transfers
from seedtrust_ops.domain.transfers.unreadable_transfers import (
    FIRST_INQUIRY_AFTER,
    is_open,
    require_own_references,
    resolve_absent,
    resolve_closed_by_people,
    subject_of,
)
from seedtrust_ops.ports.bank import Bank, BankInquiryFailed, BankTransfer, BankTransfers, UnreadableTransfer
from seedtrust_ops.tables import UnreadableTransferRow

MAX_INQUIRY_PAUSE = timedelta(hours=1)
"""The longest pause between two inquiries about one transfer (docs/rules.md, section 4)."""
MAX_INQUIRIES_PER_RUN = 200
"""How many transfers one run asks about; those that have waited longest come first."""
CONCURRENT_INQUIRIES = 16
_MAX_DOUBLINGS = 10


@dataclass(frozen=True)
class _Due:
    """A transfer to ask about again: by the bank's id, or else by its key or reference."""

    subject: str
    bank_transfer_id: str | None
    idempotency_key: str | None
    reference: str | None


def count_due(session: Session) -> int:
    """Return how many unreadable transfers the bank should be asked about now."""
    return session.scalars(select(func.count()).select_from(UnreadableTransferRow).where(_is_due())).one()


async def inquire_about_unreadable(sessions: Sessions, bank: Bank, *, grace_seconds: float) -> FeedResult:
    """Ask the bank again about the unreadable transfers that are due, and record those that can be read.

    `grace_seconds` is how long the bank must not find a transfer that it had reported without an id.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank; what was found before is recorded.
    """
    result = FeedResult()
    rows = RowByRow(sessions, lambda _session: None)
    result.unrecorded = rows.failures
    due = await asyncio.to_thread(run_in_transaction, sessions, _claim_due)
    for start in range(0, len(due), CONCURRENT_INQUIRIES):
        chunk = due[start : start + CONCURRENT_INQUIRIES]
        answers = await asyncio.gather(*(_ask(bank, one) for one in chunk), return_exceptions=True)
        found, absent, unanswered = BankTransfers(), [], 0
        for one, answer in zip(chunk, answers, strict=True):
            match answer:
                case BankTransfers():
                    found.readable.extend(answer.readable)
                    found.unreadable.extend(answer.unreadable)
                    if one.subject not in {subject_of(unreadable) for unreadable in answer.unreadable}:
                        absent.append(one.subject)
                case BankInquiryFailed():
                    # The bank may fail on this one alone. Its alert stays open, and the bank is asked again.
                    unanswered += 1
                case _:
                    raise answer
        result.add(await record_transfers(sessions, bank, rows, require_own_references(found)))
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session, absent=absent: resolve_absent(session, absent, grace_seconds)
        )
        if unanswered == len(chunk):
            break
    return result


def _is_due() -> ColumnElement[bool]:
    row = UnreadableTransferRow
    return or_(row.bank_transfer_id.is_not(None), row.idempotency_key.is_not(None), row.reference.is_not(None)) & (
        is_open() & (row.next_inquiry_at <= func.clock_timestamp())
    )


def _claim_due(session: Session) -> Sequence[_Due]:
    """Return the transfers to ask about now, after setting when they are due next, whatever the bank answers."""
    resolve_closed_by_people(session)
    row = UnreadableTransferRow
    due = select(row.subject).where(_is_due()).order_by(row.next_inquiry_at, row.subject).limit(MAX_INQUIRIES_PER_RUN)
    pause = FIRST_INQUIRY_AFTER * func.pow(2, func.least(row.attempts + 1, _MAX_DOUBLINGS))
    claimed = session.execute(
        update(row)
        .where(row.subject.in_(due.with_for_update(skip_locked=True)))
        .values(
            attempts=row.attempts + 1,
            next_inquiry_at=func.clock_timestamp() + func.least(pause, MAX_INQUIRY_PAUSE),
        )
        .returning(row.subject, row.bank_transfer_id, row.idempotency_key, row.reference)
    )
    return [_Due(*one) for one in claimed]


async def _ask(bank: Bank, due: _Due) -> BankTransfers:
    if due.bank_transfer_id is not None:
        match await bank.get_transfer(due.bank_transfer_id):
            case BankTransfer() as transfer:
                return BankTransfers([transfer])
            case UnreadableTransfer() as transfer:
                return BankTransfers([], [replace(transfer, bank_transfer_id=due.bank_transfer_id)])
            case None:
                problem = "The bank reported it, and does not find it by its id any more."
                return BankTransfers([], [UnreadableTransfer(due.bank_transfer_id, None, None, problem)])
    if due.idempotency_key is not None:
        return await bank.find_by_keys([due.idempotency_key])
    assert due.reference is not None, "only what has a name is due"
    return await bank.find_by_references([due.reference])
