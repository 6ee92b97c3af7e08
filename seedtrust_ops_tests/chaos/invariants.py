"""The checker: what must hold of money, judged by the bank's ledger and SeedTrust's tables alone.

It uses none of the product's code and none of its decisions, only the design's promises (section 4). What holds
at all times is here; what holds once nothing is open any more is `checking_rest`'s.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.chaos.evidence import Evidence, Transaction, read_evidence
from seedtrust_ops_tests.chaos.final_invariants import find_unrest
from seedtrust_ops_tests.chaos.violations import Kind, Violation

OUT_AND_BOOKED = {"completed": ["disbursement"], "returned": ["disbursement", "reversal"]}


@dataclass(frozen=True)
class Ban:
    """A time in which nothing might be sent, or nothing of these transactions: a halt, a hold, a denied request.

    It is counted in the bank's request numbers, which no clock can blur: what came after `after_request` and not
    after `until_request` (None: up to now) broke it. `but_not` are those whose request was on record before.
    """

    why: str
    after_request: int
    until_request: int | None = None
    transaction_ids: frozenset[int] | None = None
    but_not: frozenset[int] = frozenset()

    def forbids(self, request_id: int, transaction_id: int) -> bool:
        """Whether a request of this number for this transaction was forbidden."""
        return (
            request_id > self.after_request
            and (self.until_request is None or request_id <= self.until_request)
            and (self.transaction_ids is None or transaction_id in self.transaction_ids)
            and transaction_id not in self.but_not
        )


def last_request(bank: SandboxBank) -> int:
    """Return the number of the last request that the bank has seen, to start or end a `Ban` with."""
    return max((one["id"] for one in bank.requests()), default=0)


def check(
    sessions: sessionmaker[Session], bank: SandboxBank, *, quiet: bool, bans: Sequence[Ban] = ()
) -> list[Violation]:
    """Return every broken promise, none where all is well; nobody may be at work meanwhile.

    Args:
        sessions: SeedTrust's database.
        bank: the bank's control side; what concerns other databases' transactions is left out.
        quiet: whether everything was healed: then all must be settled or explained too, and the books agree.
        bans: when nothing might be sent.
    """
    evidence = read_evidence(sessions, bank)
    return [
        *_money_moved_twice(evidence),
        *_sent_without_leave(evidence, bans),
        *_words_that_the_bank_never_said(evidence),
        *_books_that_differ(evidence),
        *(find_unrest(evidence) if quiet else ()),
    ]


def _money_moved_twice(evidence: Evidence) -> Iterator[Violation]:
    out = [one for one in evidence.movements if one["direction"] == "out"]
    for key, times in Counter(one["idempotency_key"] for one in out).items():
        if times > 1:
            yield Violation(Kind.DOUBLE_PAYMENT, f"Key {key} moved money {times} times.")
    sent = Counter(int(one["reference"]) for one in out if one["cause"] == "originated")
    for transaction_id, times in sent.items():
        if times > 1:
            yield Violation(Kind.DOUBLE_PAYMENT, f"Transaction {transaction_id} was sent and paid {times} times.")
    paying = Counter(
        evidence.transactions[transaction_id].request_id
        for transaction_id in sent
        if transaction_id in evidence.transactions and evidence.out_cents(transaction_id) > 0
    )
    for request_id, times in paying.items():
        if request_id is not None and times > 1:
            yield Violation(Kind.DOUBLE_PAYMENT, f"Request {request_id} was paid by {times} transactions at once.")


def _sent_without_leave(evidence: Evidence, bans: Sequence[Ban]) -> Iterator[Violation]:
    def broken(sentence: str) -> Violation:
        return Violation(Kind.SENT_WITHOUT_LEAVE, sentence)

    requests: Counter[int] = Counter()
    for post in evidence.posts:
        transaction_id = int(post["reference"] or "")
        requests[transaction_id] += 1
        transaction = evidence.transactions.get(transaction_id)
        if transaction is None:
            yield broken(f"A request was sent for transaction {transaction_id}, which does not exist.")
            continue
        if transaction.claims == 0 or transaction.batch_status == "draft":
            yield broken(f"Transaction {transaction_id} was sent, but nobody claimed batch {transaction.batch_id}.")
        if transaction.request_id is None:
            yield broken(f"Transaction {transaction_id} was sent, but it belongs to no request.")
        if post["amount_cents"] != transaction.amount_cents:
            yield broken(f"Transaction {transaction_id} was sent with another amount than it has.")
        for ban in bans:
            if ban.forbids(post["id"], transaction_id):
                yield broken(f"Transaction {transaction_id} was sent (request {post['id']}) although {ban.why}.")
    for transaction_id, times in requests.items():
        transaction = evidence.transactions.get(transaction_id)
        if transaction is not None and times > transaction.started:
            yield broken(
                f"The bank saw {times} requests for transaction {transaction_id}, "
                f"and only {transaction.started} are on record."
            )


def _words_that_the_bank_never_said(evidence: Evidence) -> Iterator[Violation]:
    said = {"submitted": {"accepted", "completed", "rejected", "returned"}}
    said |= {"completed": {"completed", "returned"}, "returned": {"returned"}}
    for one in evidence.transactions.values():
        if one.status not in said:
            continue
        if not any(moved["direction"] == "out" for moved in evidence.movements_of.get(one.id, [])):
            yield Violation(
                Kind.LOST_PAYMENT, f"Transaction {one.id} is '{one.status}', but the bank never moved its money."
            )
            continue
        transfer = evidence.transfer_of(one)
        # A bank that lost its books has no word left; whether somebody was told is looked at once all is quiet.
        if transfer is not None and transfer["status"] not in said[one.status]:
            yield Violation(
                Kind.NOT_THE_BANKS_WORD,
                f"Transaction {one.id} is '{one.status}', and the bank says '{transfer['status']}'.",
            )


def _books_that_differ(evidence: Evidence) -> Iterator[Violation]:
    for account in evidence.accounts:
        if account.balance_cents != account.ledger_cents:
            yield Violation(
                Kind.BOOKS_DIFFER,
                f"Account {account.id} holds {account.balance_cents} cents, and its ledger {account.ledger_cents}.",
            )
    for one in evidence.transactions.values():
        yield from _wrongly_booked(evidence, one)
    for request in evidence.requests.values():
        if (request.status == "paid") != (request.completed > 0):
            yield Violation(
                Kind.BOOKS_DIFFER,
                f"Request {request.id} is '{request.status}' with {request.completed} completed transactions.",
            )


def _wrongly_booked(evidence: Evidence, one: Transaction) -> Iterable[Violation]:
    entries = evidence.entries_of.get(one.id, [])
    kinds = [entry.kind for entry in entries]
    expected = OUT_AND_BOOKED.get(one.status, []) if one.account_id is not None else []
    if sorted(kinds) != expected:
        yield Violation(
            Kind.BOOKS_DIFFER, f"Transaction {one.id} is '{one.status}', and its ledger entries are {kinds}."
        )
    signs = {"disbursement": -1, "reversal": 1}
    moved = {moved["amount_cents"] for moved in evidence.movements_of.get(one.id, [])}
    for entry in entries:
        if entry.account_id != one.account_id or entry.amount_cents * signs.get(entry.kind, 0) not in moved:
            yield Violation(
                Kind.BOOKS_DIFFER,
                f"Transaction {one.id} has a {entry.kind} of {entry.amount_cents} cents on account "
                f"{entry.account_id}, which is not what the bank moved.",
            )
