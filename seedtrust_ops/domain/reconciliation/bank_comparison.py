"""Compares a day's transactions, their ledger entries and the bank's transfers, and opens an alert if they differ.

It looks transfers up by key, and by reference if the bank does not know our key (the legacy worker's transfers). It
changes no transaction; that is the job of `transfers/auto_heal`.
See docs/decisions/ledger-posting.md.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.async_runner import run_in_loop
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.reconciliation.daily_batches import SENT_STATUSES, batch_date
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.domain.transfers.ledger_posting import booked_cents
from seedtrust_ops.domain.transfers.unreadable_transfers import require_own_references
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankStatus, BankTransfer, OpenBank
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

BANK_DISAGREES = "bank_disagrees"
UNKNOWN_TO_BANK = "unknown"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class LocalTransaction:
    """A transaction as SeedTrust has it."""

    id: int
    batch_id: int
    status: str
    amount_cents: int
    bank_transfer_id: str | None
    booked_cents: int
    """What left the account by the ledger and has not come back, corrections included."""

    @property
    def sent_cents(self) -> int:
        """Cents sent and not returned, according to SeedTrust."""
        return self.amount_cents if self.status in SENT_STATUSES else 0

    def agrees_with(self, bank_cents: int) -> bool:
        """Whether status and ledger say the same as the bank: nothing is booked before a transfer is completed."""
        booked_cents = bank_cents if self.status == "completed" else 0
        return (self.sent_cents, self.booked_cents) == (bank_cents, booked_cents)


@dataclass(frozen=True)
class BankDifference:
    """A transaction whose sent or booked cents differ from the bank's.

    `bank_status` is the bank's status, 'unknown' or 'unreadable'.
    """

    local: LocalTransaction
    bank_status: str
    bank_cents: int


@dataclass
class Reconciliation:
    """The result for some days: the transactions compared, cents sent and not returned on both sides, differences."""

    transactions: int = 0
    local_cents: int = 0
    bank_cents: int = 0
    differences: list[BankDifference] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether both sides agree on every transaction, to the cent."""
        return not self.differences

    def add(self, local: LocalTransaction, transfers: Sequence[BankTransfer], *, is_readable: bool) -> None:
        """Add one transaction and the bank's transfers for it. With one that cannot be read, the two never agree."""
        bank_cents = sum(sent_cents(transfer) for transfer in transfers)
        self.transactions += 1
        self.local_cents += local.sent_cents
        self.bank_cents += bank_cents
        if not local.agrees_with(bank_cents) or not is_readable:
            statuses = [transfer.status.value for transfer in transfers] + ([] if is_readable else [UNREADABLE])
            self.differences.append(BankDifference(local, " and ".join(statuses) or UNKNOWN_TO_BANK, bank_cents))


def add_up(days: Iterable[Reconciliation]) -> Reconciliation:
    """Return the results of several days as one."""
    total = Reconciliation()
    for day in days:
        total.transactions += day.transactions
        total.local_cents += day.local_cents
        total.bank_cents += day.bank_cents
        total.differences += day.differences
    return total


def sent_cents(transfer: BankTransfer) -> int:
    """Return the cents sent and not returned, according to the bank."""
    return transfer.amount_cents if transfer.status in (BankStatus.ACCEPTED, BankStatus.COMPLETED) else 0


def reconcile_day(sessions: Sessions, open_bank: OpenBank, day: date, zone: str) -> Reconciliation:
    """Compare the transactions of the batches of `day`; open an alert if they differ, resolve it if they agree.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the duration of the work.
        day: a calendar day in `zone`.
        zone: the office's time zone.

    Raises:
        BankInquiryFailed, BankUnauthorized: the day could not be compared; no alert is changed.
    """
    compared = run_in_loop(lambda: _compare(sessions, open_bank, day, zone))
    run_in_transaction(sessions, lambda session: _update_alert(session, day, compared))
    return compared


async def _compare(sessions: Sessions, open_bank: OpenBank, day: date, zone: str) -> Reconciliation:
    compared = Reconciliation()
    async with open_bank() as bank:
        async for page in _pages(sessions, day, zone):
            found, unreadable = await _find_transfers(bank, page)
            for local in page:
                compared.add(local, found[local.id], is_readable=local.id not in unreadable)
    return compared


async def _pages(sessions: Sessions, day: date, zone: str) -> AsyncIterator[list[LocalTransaction]]:
    after = 0
    while page := await asyncio.to_thread(_next_page, sessions, day, zone, after):
        yield page
        after = page[-1].id


def _next_page(sessions: Sessions, day: date, zone: str, after: int) -> list[LocalTransaction]:
    query = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.bank_transfer_id,
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(batch_date(zone) == day, HuntingtonTransaction.id > after)
        .order_by(HuntingtonTransaction.id)
        .limit(LOOKUP_PAGE_SIZE)
    )
    with sessions() as session:
        rows = session.execute(query).all()
        booked = booked_cents(session, [row.id for row in rows])
    return [LocalTransaction(*row, booked_cents=-booked[row.id]) for row in rows]


async def _find_transfers(
    bank: Bank, page: Sequence[LocalTransaction]
) -> tuple[dict[int, list[BankTransfer]], set[int]]:
    """Return the bank's transfers for each transaction: the one with our key, otherwise those with its reference.

    Also return the transactions that the bank has a transfer for which cannot be read.
    """
    found: dict[int, list[BankTransfer]] = {one.id: [] for one in page}
    by_key = {idempotency_key(one.id): one.id for one in page}
    transfers = require_own_references(await bank.find_by_keys(list(by_key)))
    for transfer in transfers.readable:
        found[by_key[transfer.idempotency_key]].append(transfer)
    unreadable = {by_key[one.idempotency_key] for one in transfers.unreadable if one.idempotency_key is not None}
    missing = {str(one.id): one for one in page if not found[one.id] and one.id not in unreadable}
    transfers = await bank.find_by_references(list(missing))
    for transfer in transfers.readable:
        one = missing[transfer.reference]
        if one.bank_transfer_id in (None, transfer.id):
            found[one.id].append(transfer)
    unreadable |= {missing[one.reference].id for one in transfers.unreadable if one.reference is not None}
    return found, unreadable


def _update_alert(session: Session, day: date, compared: Reconciliation) -> None:
    if compared.agrees:
        resolve_alert(session, BANK_DISAGREES, str(day))
        return
    open_alert(
        session,
        BANK_DISAGREES,
        str(day),
        "HIGH",
        f"SeedTrust, its ledger and the bank differ on {pluralize(len(compared.differences), 'transaction')} of the "
        f"batches of {day}: {_join_ids(one.local.id for one in compared.differences)}. See check "
        "agrees_with_bank of asset huntington_transfers for all sides of each.",
    )


def _join_ids(ids: Iterable[int]) -> str:
    first = [str(one) for one in ids]
    return ", ".join(first[:20]) + (f" and {len(first) - 20} more" if len(first) > 20 else "")
