"""Compares SeedTrust's ledger with the sandbox bank's to the cent: per batch, in total, and per transaction.

It reads both and changes neither. Production's reconciliation is in `seedtrust_ops.domain.reconciliation`.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.transfers.attempts import parse_idempotency_key
from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.tables import Account, HuntingtonTransaction, LedgerEntry, UnknownTransfer


@dataclass(frozen=True)
class Comparison:
    """One batch in both ledgers, in cents (out minus back), and the number of requests that reached the bank."""

    batch_id: int
    at_bank_cents: int
    booked_cents: int
    requests: int

    @property
    def difference_cents(self) -> int:
        """What the bank moved and SeedTrust has not booked; negative if SeedTrust booked more."""
        return self.at_bank_cents - self.booked_cents


@dataclass(frozen=True)
class Reconciliation:
    """The comparison of both ledgers; all lists of differences should be empty."""

    batches: list[Comparison]
    out_cents: int
    back_cents: int
    explained_cents: int
    """What went out and has not come back of the transfers that are not ours and that a person has explained."""
    paid_more_than_once: list[str]
    """Idempotency keys and references."""
    mismatched_transactions: list[int]
    unknown_references: list[str]
    unbalanced_accounts: list[int]
    """Accounts whose balance is not the sum of their ledger entries."""

    @property
    def at_bank_cents(self) -> int:
        return sum(batch.at_bank_cents for batch in self.batches)

    @property
    def booked_cents(self) -> int:
        return sum(batch.booked_cents for batch in self.batches)

    @property
    def agrees(self) -> bool:
        """Whether there is no difference at all."""
        return not (
            self.paid_more_than_once
            or self.mismatched_transactions
            or self.unknown_references
            or self.unbalanced_accounts
            or any(batch.difference_cents for batch in self.batches)
        )


def reconcile(session: Session, bank: SandboxBank) -> Reconciliation:
    """Compare the two ledgers as they are now."""
    batch_of: dict[int, int] = {
        row.id: row.batch_id
        for row in session.execute(select(HuntingtonTransaction.id, HuntingtonTransaction.batch_id))
    }
    booked: dict[int, int] = {
        row.transaction_id: -int(row.cents)
        for row in session.execute(
            select(
                LedgerEntry.huntington_transaction_id.label("transaction_id"),
                func.sum(LedgerEntry.amount_cents).label("cents"),
            )
            .where(LedgerEntry.huntington_transaction_id.is_not(None))
            .group_by(LedgerEntry.huntington_transaction_id)
        )
    }
    explained_by_person = select(UnknownTransfer.bank_transfer_id).where(
        UnknownTransfer.explained_at.is_not(None), UnknownTransfer.explained_by.is_not(None)
    )
    explained = set(session.scalars(explained_by_person))
    at_bank: Counter[int] = Counter()
    out_cents = back_cents = explained_cents = 0
    unknown = set()
    for movement in bank.ledger()["movements"]:
        cents = movement["amount_cents"]
        out_cents += cents if movement["direction"] == "out" else 0
        back_cents += cents if movement["direction"] == "back" else 0
        net_cents = cents if movement["direction"] == "out" else -cents
        if movement["transfer_id"] in explained:
            explained_cents += net_cents
            continue
        reference = movement["reference"]
        if not reference.isdigit() or int(reference) not in batch_of:
            unknown.add(reference)
            continue
        at_bank[int(reference)] += net_cents
    requests = Counter(
        parse_idempotency_key(request["idempotency_key"] or "")
        for request in bank.requests()
        if request["method"] == "POST"
    )
    batches: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for transaction_id, batch_id in batch_of.items():
        batches[batch_id][0] += at_bank[transaction_id]
        batches[batch_id][1] += booked.get(transaction_id, 0)
        batches[batch_id][2] += requests[transaction_id]
    totals = bank.totals()
    return Reconciliation(
        batches=[Comparison(batch_id, *cents) for batch_id, cents in sorted(batches.items())],
        out_cents=out_cents,
        back_cents=back_cents,
        explained_cents=explained_cents,
        paid_more_than_once=totals["keys_paid_more_than_once"] + totals["references_paid_more_than_once"],
        mismatched_transactions=sorted(one for one in batch_of if at_bank[one] != booked.get(one, 0)),
        unknown_references=sorted(unknown),
        unbalanced_accounts=_unbalanced_accounts(session),
    )


def _unbalanced_accounts(session: Session) -> list[int]:
    entries = (
        select(func.coalesce(func.sum(LedgerEntry.amount_cents), 0))
        .where(LedgerEntry.account_id == Account.id)
        .scalar_subquery()
    )
    return list(session.scalars(select(Account.id).where(Account.balance_cents != entries).order_by(Account.id)))
