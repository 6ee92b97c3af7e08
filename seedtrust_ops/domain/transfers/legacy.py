"""Matches transfers that the legacy worker made, which bear no key of ours, by reference and amount.

Where anything but one transfer of the same amount answers, nobody guesses: an alert asks people.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.bank import LOOK_UP_PAGE, BankTransfer
from seedtrust_ops.domain.alerts import open_alert
from seedtrust_ops.domain.committing import Sessions, commit
from seedtrust_ops.domain.transfers.bank import Bank


@dataclass(frozen=True)
class LegacyTransaction:
    """A transaction that we never sent under our key; `bank_transfer_id` where the bank's transfer is known."""

    id: int
    amount_cents: int
    bank_transfer_id: str | None = None


async def match_by_reference(
    sessions: Sessions, bank: Bank, transactions: Sequence[LegacyTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Ask the bank for transfers whose reference is a transaction's id.

    Returns:
        The one transfer of the same amount of each transaction that has one; and the transactions that are in
        doubt, because several match or only other amounts do. For those an alert is open.

    Raises:
        BankGaveNoAnswer, BankUnauthorized: as the bank does.
    """
    found: dict[int, BankTransfer] = {}
    doubtful: dict[int, list[BankTransfer]] = {}
    for start in range(0, len(transactions), LOOK_UP_PAGE):
        page = transactions[start : start + LOOK_UP_PAGE]
        by_reference: defaultdict[str, list[BankTransfer]] = defaultdict(list)
        for transfer in await bank.find_by_references([str(one.id) for one in page]):
            by_reference[transfer.reference].append(transfer)
        for one in page:
            transfers = by_reference[str(one.id)]
            known = [transfer for transfer in transfers if transfer.id == one.bank_transfer_id]
            same_amount = known or [transfer for transfer in transfers if transfer.amount_cents == one.amount_cents]
            if len(same_amount) == 1:
                found[one.id] = same_amount[0]
            elif transfers:
                doubtful[one.id] = transfers
    if doubtful:
        await asyncio.to_thread(commit, sessions, lambda session: _tell(session, doubtful))
    return found, set(doubtful)


def _tell(session: Session, doubtful: dict[int, list[BankTransfer]]) -> None:
    for transaction_id, transfers in doubtful.items():
        listed = ", ".join(f"{one.id} ({one.amount_cents} cents, {one.status})" for one in transfers)
        open_alert(
            session,
            "transfer_ambiguous",
            f"transaction {transaction_id}",
            "CRITICAL",
            f"Transaction {transaction_id} was sent by the legacy worker, and the bank has these transfers with its "
            f"id as their reference: {listed}. No single one of them has its amount, so nothing was recorded and "
            "nothing is sent again. Find out with Huntington which one it is, and set its status by hand.",
        )
