"""Lays our transactions of a day beside the bank's transfers, cent by cent, and tells people where they differ.

It asks by key, and by reference where the bank does not know our key (the legacy worker's transfers). It changes no
transaction: that is auto-heal's.
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
from seedtrust_ops.domain.reconciliation.daily_batches import GONE, day_of_batch
from seedtrust_ops.domain.transfers.batch_processor import OpenBank
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.ports.bank import LOOK_UP_PAGE, Bank, BankStatus, BankTransfer
from seedtrust_ops.tables import HuntingtonBatch, HuntingtonTransaction

BANK_DISAGREES = "bank_disagrees"
UNKNOWN_TO_BANK = "unknown"


@dataclass(frozen=True)
class OurTransaction:
    """A transaction as we have it."""

    id: int
    batch_id: int
    status: str
    amount_cents: int
    bank_transfer_id: str | None

    @property
    def gone_cents(self) -> int:
        """What left for it and has not come back, as we believe."""
        return self.amount_cents if self.status in GONE else 0


@dataclass(frozen=True)
class Difference:
    """A transaction of which the bank has moved another sum than we believe; `at_bank` is its word."""

    ours: OurTransaction
    at_bank: str
    at_bank_cents: int


@dataclass
class Reconciliation:
    """A day compared: how many transactions, what left and has not come back in cents, and each difference."""

    transactions: int = 0
    ours_cents: int = 0
    at_bank_cents: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether both say the same of every transaction, to the cent."""
        return not self.differences

    def add(self, ours: OurTransaction, transfers: Sequence[BankTransfer]) -> None:
        """Count one transaction in, with what the bank has for it."""
        at_bank_cents = sum(gone_cents(transfer) for transfer in transfers)
        self.transactions += 1
        self.ours_cents += ours.gone_cents
        self.at_bank_cents += at_bank_cents
        if at_bank_cents != ours.gone_cents:
            word = " and ".join(transfer.status.value for transfer in transfers) or UNKNOWN_TO_BANK
            self.differences.append(Difference(ours, word, at_bank_cents))


def gone_cents(transfer: BankTransfer) -> int:
    """Return what left for the transfer and has not come back, by the bank's word."""
    return transfer.amount_cents if transfer.status in (BankStatus.ACCEPTED, BankStatus.COMPLETED) else 0


def reconcile_day(sessions: Sessions, open_bank: OpenBank, day: date, zone: str) -> Reconciliation:
    """Compare the transactions of the batches of `day`; open an alert where they differ, resolve it where they agree.

    Args:
        sessions: the application's database.
        open_bank: opens a connection to the bank for the length of the work.
        day: by the clock of `zone`.
        zone: the office's time zone.

    Raises:
        BankInquiryFailed, BankUnauthorized: nothing can be said of the day then, and no alert is touched.
    """
    compared = run_in_loop(lambda: _compare(sessions, open_bank, day, zone))
    run_in_transaction(sessions, lambda session: _tell(session, day, compared))
    return compared


async def _compare(sessions: Sessions, open_bank: OpenBank, day: date, zone: str) -> Reconciliation:
    compared = Reconciliation()
    async with open_bank() as bank:
        async for page in _pages(sessions, day, zone):
            found = await _at_bank(bank, page)
            for ours in page:
                compared.add(ours, found[ours.id])
    return compared


async def _pages(sessions: Sessions, day: date, zone: str) -> AsyncIterator[list[OurTransaction]]:
    after = 0
    while page := await asyncio.to_thread(_next_page, sessions, day, zone, after):
        yield page
        after = page[-1].id


def _next_page(sessions: Sessions, day: date, zone: str, after: int) -> list[OurTransaction]:
    query = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.batch_id,
            HuntingtonTransaction.status,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.bank_transfer_id,
        )
        .join(HuntingtonBatch, HuntingtonBatch.id == HuntingtonTransaction.batch_id)
        .where(day_of_batch(zone) == day, HuntingtonTransaction.id > after)
        .order_by(HuntingtonTransaction.id)
        .limit(LOOK_UP_PAGE)
    )
    with sessions() as session:
        return [OurTransaction(*row) for row in session.execute(query)]


async def _at_bank(bank: Bank, page: Sequence[OurTransaction]) -> dict[int, list[BankTransfer]]:
    """Return the bank's transfers of each transaction: the one with our key, or else those with its reference."""
    found: dict[int, list[BankTransfer]] = {one.id: [] for one in page}
    by_key = {idempotency_key(one.id): one.id for one in page}
    for transfer in await bank.find_by_keys(list(by_key)):
        found[by_key[transfer.idempotency_key]].append(transfer)
    lost = {str(one.id): one for one in page if not found[one.id]}
    if lost:
        for transfer in await bank.find_by_references(list(lost)):
            one = lost[transfer.reference]
            if one.bank_transfer_id in (None, transfer.id):
                found[one.id].append(transfer)
    return found


def _tell(session: Session, day: date, compared: Reconciliation) -> None:
    if compared.agrees:
        resolve_alert(session, BANK_DISAGREES, str(day))
        return
    open_alert(
        session,
        BANK_DISAGREES,
        str(day),
        "MEDIUM",
        f"{len(compared.differences)} transactions of batches of {day} are not what the bank says: "
        f"{_numbers(one.ours.id for one in compared.differences)}.",
    )


def _numbers(ids: Iterable[int]) -> str:
    first = [str(one) for one in ids]
    return ", ".join(first[:20]) + (f" and {len(first) - 20} more" if len(first) > 20 else "")
