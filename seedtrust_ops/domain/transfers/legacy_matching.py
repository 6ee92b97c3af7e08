"""Matches transfers without one of our keys, such as those made by the legacy worker, by reference and amount.

If the bank does not have exactly one transfer of the same amount, nothing is guessed: an alert asks a person to decide.
See docs/decisions/legacy-takeover.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.ports.bank import LOOKUP_PAGE_SIZE, Bank, BankTransfer


@dataclass(frozen=True)
class LegacyTransaction:
    """A transaction that the bank does not know by our key; `bank_transfer_id` is set if its transfer is known.

    `is_sent_by_us` means that we sent it under our key: then a transfer with its reference was made by another
    system, or the bank has lost the key.
    """

    id: int
    amount_cents: int
    bank_transfer_id: str | None = None
    is_sent_by_us: bool = False


async def match_by_reference(
    sessions: Sessions, bank: Bank, transactions: Sequence[LegacyTransaction]
) -> tuple[dict[int, BankTransfer], set[int]]:
    """Look up the transfers whose reference is a transaction's id.

    Returns:
        For each transaction with exactly one transfer of the same amount, that transfer; and the ambiguous
        transactions, because several transfers match, only other amounts match, or we sent the transaction under our
        own key. An alert is open for each ambiguous one.

    Raises:
        BankInquiryFailed, BankUnauthorized: from the bank.
    """
    found: dict[int, BankTransfer] = {}
    ambiguous: dict[LegacyTransaction, list[BankTransfer]] = {}
    for start in range(0, len(transactions), LOOKUP_PAGE_SIZE):
        page = transactions[start : start + LOOKUP_PAGE_SIZE]
        by_reference: defaultdict[str, dict[str, BankTransfer]] = defaultdict(dict)
        for transfer in await bank.find_by_references([str(one.id) for one in page]):
            # A transfer that changes while the bank's pages are read appears on two of them.
            by_reference[transfer.reference][transfer.id] = transfer
        for one in page:
            transfers = list(by_reference[str(one.id)].values())
            known = [transfer for transfer in transfers if transfer.id == one.bank_transfer_id]
            same_amount = known or [transfer for transfer in transfers if transfer.amount_cents == one.amount_cents]
            if len(same_amount) == 1 and not one.is_sent_by_us:
                found[one.id] = same_amount[0]
            elif transfers:
                ambiguous[one] = transfers
    if ambiguous:
        await asyncio.to_thread(
            run_in_transaction, sessions, lambda session: _open_ambiguous_alerts(session, ambiguous)
        )
    return found, {one.id for one in ambiguous}


def _open_ambiguous_alerts(session: Session, ambiguous: dict[LegacyTransaction, list[BankTransfer]]) -> None:
    for one, transfers in ambiguous.items():
        listed = ", ".join(
            f"{transfer.id} ({transfer.amount_cents} cents, {transfer.status})" for transfer in transfers
        )
        origin = (
            "was sent under our idempotency key, which the bank does not know; instead"
            if one.is_sent_by_us
            else "was sent by the legacy worker, and"
        )
        why = "It is unclear whether any is the same payment" if one.is_sent_by_us else "No single one has its amount"
        open_alert(
            session,
            "transfer_ambiguous",
            f"transaction {one.id}",
            "CRITICAL",
            f"Transaction {one.id} {origin} the bank has these transfers with its id as reference: {listed}. {why}. "
            "Nothing was recorded and nothing will be resent. Ask Huntington which transfer belongs to this "
            "transaction, and set its status by hand.",
        )
