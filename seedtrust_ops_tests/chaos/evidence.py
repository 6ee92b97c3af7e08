"""The evidence that the invariants are checked on: the bank's ledger and request log, and SeedTrust's tables.

It is read with plain SQL and the bank's control client and calls none of the product's code. The invariants are in
`invariants` and `final_invariants`.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.control_client import LoggedRequest, Movement, SandboxBank, Transfer
from seedtrust_ops_tests.chaos.human_record import HumanRecord

Record = TypeVar("Record", Movement, Transfer)

FORGOTTEN_RULE = "transfer_forgotten_by_bank"
TRANSACTIONS = """
    select t.id, t.batch_id, t.disbursement_request_id as request_id, t.amount_cents, t.status, t.failure_reason,
           t.bank_transfer_id, b.status as batch_status, coalesce(l.generation, 0) as claims, a.id as account_id,
           (select count(*) from ops.transfer_attempts s
             where s.transaction_id = t.id and s.outcome = 'started') as started
      from huntington_transactions t
      join huntington_batches b on b.id = t.batch_id
      left join ops.batch_leases l on l.batch_id = b.id
      left join disbursement_requests r on r.id = t.disbursement_request_id
      left join accounts a on a.case_id = r.case_id
     order by t.id
"""
BATCHES = """
    select b.id, b.status, b.finished_at is not null as is_finished,
           coalesce(l.token is not null and l.expires_at > clock_timestamp(), false) as is_leased,
           coalesce(l.generation, 0) as claims
      from huntington_batches b left join ops.batch_leases l on l.batch_id = b.id
     order by b.id
"""
REQUESTS = """
    select r.id, r.status, r.amount_cents, count(t.id) as transactions,
           count(t.id) filter (where t.status = 'completed') as completed
      from disbursement_requests r join huntington_transactions t on t.disbursement_request_id = r.id
     group by r.id order by r.id
"""
ACCOUNTS = """
    select a.id, a.balance_cents, coalesce(sum(e.amount_cents), 0)::bigint as ledger_cents
      from accounts a left join ledger_entries e on e.account_id = a.id
     group by a.id order by a.id
"""
LEDGER = """
    select huntington_transaction_id as transaction_id, account_id, kind, amount_cents
      from ledger_entries where huntington_transaction_id is not null order by id
"""
ALERTS = "select rule, subject from ops.alerts where resolved_at is null"
ORDERS = """
    select transaction_id, request_id, account_id, amount_cents, approved_cents, batch_id, batch_status, is_leased
      from witness.orders order by transaction_id, attempt
"""
CORRECTIONS = """
    select c.transaction_id, sum(e.amount_cents)::bigint as amount_cents
      from ops.ledger_corrections c join ledger_entries e on e.id = c.ledger_entry_id group by c.transaction_id
"""
SWITCHES = "select count(*) from ops.switches"
IDS = """
    select min(t.id) as lowest, greatest(max(t.id), max(s.last_value)) as highest
      from huntington_transactions t,
           pg_sequences s where s.schemaname = 'public' and s.sequencename = 'huntington_transactions_id_seq'
"""


@dataclass(frozen=True)
class Transaction:
    """One of SeedTrust's transactions and what belongs to it; `started` counts its recorded attempts."""

    id: int
    batch_id: int
    request_id: int | None
    amount_cents: int
    status: str
    failure_reason: str | None
    bank_transfer_id: str | None
    batch_status: str
    claims: int
    account_id: int | None
    started: int


@dataclass(frozen=True)
class Batch:
    """A batch; `claims` counts how often a worker claimed it, `is_leased` says that a lease is live now."""

    id: int
    status: str
    is_finished: bool
    is_leased: bool
    claims: int


@dataclass(frozen=True)
class Request:
    """A disbursement request with transactions, and how many of them are completed."""

    id: int
    status: str
    amount_cents: int
    transactions: int
    completed: int


@dataclass(frozen=True)
class Account:
    """An escrow account's balance and the sum of its ledger entries, in cents."""

    id: int
    balance_cents: int
    ledger_cents: int


@dataclass(frozen=True)
class Entry:
    """One ledger entry of a transaction, in cents."""

    transaction_id: int
    account_id: int
    kind: str
    amount_cents: int


@dataclass(frozen=True)
class Order:
    """A transaction as it was when an attempt to send it was recorded, by the witness (`witness.py`)."""

    transaction_id: int
    request_id: int | None
    account_id: int | None
    amount_cents: int
    approved_cents: int | None
    batch_id: int
    batch_status: str
    is_leased: bool


@dataclass(frozen=True)
class Evidence:
    """Both sides' records at one time; of the bank's, only those of this database's transactions."""

    transactions: dict[int, Transaction]
    batches: list[Batch]
    requests: dict[int, Request]
    accounts: list[Account]
    entries: list[Entry]
    corrections: dict[int, int]
    """The cents of all ledger corrections, by transaction id."""
    orders: list[Order]
    alerts: set[tuple[str, str]]
    is_halted: bool
    transfers: list[Transfer]
    movements: list[Movement]
    posts: list[LoggedRequest]
    human: HumanRecord = field(default_factory=HumanRecord)

    @cached_property
    def movements_of(self) -> dict[int, list[Movement]]:
        """All movements of money by transaction id, oldest first."""
        return _by_reference(self.movements)

    @cached_property
    def transfers_of(self) -> dict[int, list[Transfer]]:
        """The bank's transfers by the transaction id in their reference."""
        return _by_reference(self.transfers)

    @cached_property
    def entries_of(self) -> dict[int, list[Entry]]:
        """The ledger entries by transaction id."""
        entries: defaultdict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            entries[entry.transaction_id].append(entry)
        return dict(entries)

    @cached_property
    def orders_of(self) -> dict[int, list[Order]]:
        """The orders by transaction id, in the order of their attempts."""
        orders: defaultdict[int, list[Order]] = defaultdict(list)
        for order in self.orders:
            orders[order.transaction_id].append(order)
        return dict(orders)

    def request_of(self, transaction_id: int) -> int | None:
        """The disbursement request that a transaction was last sent for, or has if it was never sent."""
        if orders := self.orders_of.get(transaction_id):
            return orders[-1].request_id
        transaction = self.transactions.get(transaction_id)
        return transaction.request_id if transaction else None

    def account_of(self, transaction: Transaction) -> int | None:
        """The account of the case whose request a transaction was last sent for, or has if it was never sent."""
        orders = self.orders_of.get(transaction.id)
        return orders[-1].account_id if orders else transaction.account_id

    def out_cents(self, transaction_id: int) -> int:
        """What left the bank for a transaction and was not returned, in cents."""
        return sum(
            one["amount_cents"] if one["direction"] == "out" else -one["amount_cents"]
            for one in self.movements_of.get(transaction_id, [])
        )

    def is_dishonored(self, transaction_id: int) -> bool:
        """Whether the bank sent a returned transfer back out."""
        return any(one["cause"] == "dishonored" for one in self.movements_of.get(transaction_id, []))

    def transfer_of(self, transaction: Transaction) -> Transfer | None:
        """The bank's transfer for a transaction: the one whose id SeedTrust stored, or else the only one there is."""
        transfers = self.transfers_of.get(transaction.id, [])
        named = [one for one in transfers if one["id"] == transaction.bank_transfer_id]
        if named or transaction.bank_transfer_id is not None:
            return named[0] if named else None
        return transfers[0] if len(transfers) == 1 else None

    @property
    def bank_lost_transfers(self) -> bool:
        """Whether an alert is open that the bank lost a transfer, so that its "unknown" proves nothing."""
        return any(rule == FORGOTTEN_RULE for rule, _ in self.alerts)

    def has_alert(self, transaction: Transaction, *rules: str) -> bool:
        """Whether an alert of one of the rules is open about the transaction, its request or one of its transfers."""
        transfers = (f"bank transfer {one['id']}" for one in self.transfers_of.get(transaction.id, []))
        requests = {transaction.request_id, self.request_of(transaction.id)}
        subjects = (f"transaction {transaction.id}", *(f"request {one}" for one in requests), *transfers)
        return any((rule, subject) in self.alerts for rule in rules for subject in subjects)


def read_evidence(sessions: sessionmaker[Session], bank: SandboxBank, human: HumanRecord) -> Evidence:
    """Read both sides. No worker may be running, or the two sides are read at different times."""
    ledger, requests = bank.ledger(), bank.requests()
    with sessions() as session:
        ids = session.execute(text(IDS)).one()
        lowest, highest = ids.lowest or 1, ids.highest or 0

        def is_ours(reference: str | None) -> bool:
            return reference is not None and reference.isdecimal() and lowest <= int(reference) <= highest

        return Evidence(
            transactions={row.id: Transaction(*row) for row in session.execute(text(TRANSACTIONS))},
            batches=[Batch(*row) for row in session.execute(text(BATCHES))],
            requests={row.id: Request(*row) for row in session.execute(text(REQUESTS))},
            accounts=[Account(*row) for row in session.execute(text(ACCOUNTS))],
            entries=[Entry(*row) for row in session.execute(text(LEDGER))],
            corrections={row.transaction_id: row.amount_cents for row in session.execute(text(CORRECTIONS))},
            orders=[Order(*row) for row in session.execute(text(ORDERS))],
            alerts={(row.rule, row.subject) for row in session.execute(text(ALERTS))},
            is_halted=bool(session.scalar(text(SWITCHES))),
            transfers=[one for one in ledger["transfers"] if is_ours(one["reference"])],
            movements=[one for one in ledger["movements"] if is_ours(one["reference"])],
            posts=[one for one in requests if one["method"] == "POST" and is_ours(one["reference"])],
            human=human,
        )


def _by_reference(rows: list[Record]) -> dict[int, list[Record]]:
    found: defaultdict[int, list[Record]] = defaultdict(list)
    for row in rows:
        found[int(row["reference"])].append(row)
    return dict(found)
