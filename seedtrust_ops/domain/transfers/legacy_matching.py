"""Matches transfers that bear no key of ours, such as those that the legacy worker made, by reference and amount.

Where anything but one transfer of the same amount answers, nobody guesses: an alert asks people.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.ports.bank import LOOK_UP_PAGE, Bank, BankTransfer


@dataclass(frozen=True)
class LegacyTransaction:
    """A transaction that the bank does not know by our key; `bank_transfer_id` where the bank's transfer is known.

    `ours` where we sent it under our key: then a transfer with its reference is somebody else's, or the bank has
    forgotten the key.
    """

    id: int
    amount_cents: int
    bank_transfer_id: str | None = None
    ours: bool = False


async def match_by_reference(
    sessions: Sessions, bank: Bank, transactions: Sequence[LegacyTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Ask the bank for transfers whose reference is a transaction's id.

    Returns:
        The one transfer of the same amount of each transaction that has one; and the transactions that are in
        doubt, because several match or only other amounts do, or because we sent them under our own key. For those
        an alert is open.

    Raises:
        BankInquiryFailed, BankUnauthorized: as the bank does.
    """
    found: dict[int, BankTransfer] = {}
    doubtful: dict[LegacyTransaction, list[BankTransfer]] = {}
    for start in range(0, len(transactions), LOOK_UP_PAGE):
        page = transactions[start : start + LOOK_UP_PAGE]
        by_reference: defaultdict[str, dict[str, BankTransfer]] = defaultdict(dict)
        for transfer in await bank.find_by_references([str(one.id) for one in page]):
            # One that changes while the bank's pages are read is on two of them.
            by_reference[transfer.reference][transfer.id] = transfer
        for one in page:
            transfers = list(by_reference[str(one.id)].values())
            known = [transfer for transfer in transfers if transfer.id == one.bank_transfer_id]
            same_amount = known or [transfer for transfer in transfers if transfer.amount_cents == one.amount_cents]
            if len(same_amount) == 1 and not one.ours:
                found[one.id] = same_amount[0]
            elif transfers:
                doubtful[one] = transfers
    if doubtful:
        await asyncio.to_thread(run_in_transaction, sessions, lambda session: _tell(session, doubtful))
    return found, {one.id for one in doubtful}


def _tell(session: Session, doubtful: dict[LegacyTransaction, list[BankTransfer]]) -> None:
    for one, transfers in doubtful.items():
        listed = ", ".join(
            f"{transfer.id} ({transfer.amount_cents} cents, {transfer.status})" for transfer in transfers
        )
        story = (
            "was sent under our key, which the bank does not know; instead"
            if one.ours
            else "was sent by the legacy worker, and"
        )
        why = "None of them is surely it" if one.ours else "No single one of them has its amount"
        open_alert(
            session,
            "transfer_ambiguous",
            f"transaction {one.id}",
            "CRITICAL",
            f"Transaction {one.id} {story} the bank has these transfers with its id as their reference: {listed}. "
            f"{why}, so nothing was recorded and nothing is sent again. Find out with Huntington which one it is, and "
            "set its status by hand.",
        )
