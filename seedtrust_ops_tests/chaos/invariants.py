"""The invariants: what must hold of money at all times, judged by the bank's ledger and SeedTrust's tables alone.

They use none of the product's code, only its promises (docs/rules.md, section 4). What must hold once nothing is open
any more is in `final_invariants`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops_tests.chaos.evidence import Evidence, Transaction, read_evidence
from seedtrust_ops_tests.chaos.final_invariants import check_final_state
from seedtrust_ops_tests.chaos.human_record import HumanRecord
from seedtrust_ops_tests.chaos.somebody_knows import check_somebody_knows
from seedtrust_ops_tests.chaos.transfers_explained import check_transfers_explained
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

LEDGER_KINDS = {"completed": ["disbursement"], "returned": ["disbursement", "reversal"]}
"""The ledger entries that a transaction must have, by its status; none in any other status."""

NOTHING_MOVED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS}
"""The statuses of responses that say that no money moved (bank_api.yaml, POST /v1/transfers)."""
UNREADABLE_ANSWERS = {"garbage", "swapped_response"}


@dataclass(frozen=True)
class SendBan:
    """A period in which nothing may be sent, or none of these transactions: a halt, a hold, a denied request.

    It is measured in the bank's request ids, which do not depend on any clock: a request with an id above
    `after_request` and up to `until_request` (None: until now) is a violation. `exempt_ids` are transactions whose
    attempt was recorded before the ban.
    """

    reason: str
    after_request: int
    until_request: int | None = None
    transaction_ids: frozenset[int] | None = None
    exempt_ids: frozenset[int] = frozenset()

    def forbids(self, request_id: int, transaction_id: int) -> bool:
        """Whether a request with this id for this transaction was forbidden."""
        return (
            request_id > self.after_request
            and (self.until_request is None or request_id <= self.until_request)
            and (self.transaction_ids is None or transaction_id in self.transaction_ids)
            and transaction_id not in self.exempt_ids
        )


def last_request_id(bank: SandboxBank) -> int:
    """Return the id of the last request that the bank has received, to start or end a `SendBan` with."""
    return max((one["id"] for one in bank.requests()), default=0)


def check_invariants(
    sessions: sessionmaker[Session],
    bank: SandboxBank,
    *,
    is_final: bool,
    bans: Sequence[SendBan] = (),
    steady_funds: Sequence[SendBan] = (),
    human: HumanRecord | None = None,
) -> list[Violation]:
    """Return every violation, or an empty list. No worker may be running.

    Args:
        sessions: SeedTrust's database.
        bank: the bank's control client; records about other databases' transactions are ignored.
        is_final: whether recovery has finished: then everything must also be settled or explained, and the books
            must agree.
        bans: when nothing was allowed to be sent.
        steady_funds: when no money left the funding account but by our own transfers, so that none may lack funds.
        human: what people have done by hand, if anything.
    """
    evidence = read_evidence(sessions, bank, human or HumanRecord())
    return [
        *_double_payments(evidence),
        *_sent_without_permission(evidence, bans),
        *_sent_without_funds(evidence, steady_funds),
        *_status_mismatches(evidence),
        *_ledger_mismatches(evidence),
        *(check_final_state(evidence) if is_final else ()),
        *(check_transfers_explained(sessions, bank) if is_final else ()),
        *(check_somebody_knows(sessions, evidence) if is_final else ()),
    ]


def check_resends(bank: SandboxBank) -> list[Violation]:
    """Return a violation for each request that was sent again before the bank had said what it knows of the first one.

    Only where no worker may be frozen between its last check and its request, which is then sent too late.
    """
    asked: Counter[str] = Counter()
    asked_before: dict[str, int] = {}
    violations = []
    for one in bank.requests():
        if one["method"] == "GET":
            if one["status"] == HTTPStatus.OK and one["fault"] not in UNREADABLE_ANSWERS:
                asked.update(parse_qs(one["query"]).get("idempotency_key", []))
            continue
        key = one["idempotency_key"] or ""
        if asked_before.get(key) == asked[key]:
            violations.append(
                Violation(
                    ViolationKind.SENT_WITHOUT_PERMISSION,
                    f"Transaction {one['reference']} was sent again (bank request {one['id']}) before the bank had "
                    "said whether it knows the key.",
                )
            )
        if one["status"] not in NOTHING_MOVED:
            asked_before[key] = asked[key]
    return violations


def _double_payments(evidence: Evidence) -> Iterator[Violation]:
    out = [one for one in evidence.movements if one["direction"] == "out"]
    for key, times in Counter(one["idempotency_key"] for one in out).items():
        if times > 1:
            yield Violation(ViolationKind.DOUBLE_PAYMENT, f"Idempotency key {key} moved money {times} times.")
    sent = Counter(int(one["reference"]) for one in out if one["cause"] == "originated")
    for transaction_id, times in sent.items():
        if times > 1:
            yield Violation(
                ViolationKind.DOUBLE_PAYMENT, f"Transaction {transaction_id} was sent and paid {times} times."
            )
    paying = Counter(
        evidence.request_of(transaction_id)
        for transaction_id in sent
        if evidence.out_cents(transaction_id) > 0
        # Its request may have been paid again after the return; `final_invariants` requires an alert.
        and not evidence.is_dishonored(transaction_id)
        # A person who says that the bank is wrong makes its request payable.
        and transaction_id not in evidence.human.settled_against_bank
    )
    for request_id, times in paying.items():
        if request_id is not None and times > 1:
            yield Violation(
                ViolationKind.DOUBLE_PAYMENT,
                f"Disbursement request {request_id} was paid by {times} transactions at once.",
            )


def _sent_without_permission(evidence: Evidence, bans: Sequence[SendBan]) -> Iterator[Violation]:
    def violation(message: str) -> Violation:
        return Violation(ViolationKind.SENT_WITHOUT_PERMISSION, message)

    requests: Counter[int] = Counter()
    for post in evidence.posts:
        transaction_id = int(post["reference"] or "")
        requests[transaction_id] += 1
        for ban in bans:
            if ban.forbids(post["id"], transaction_id):
                yield violation(
                    f"Transaction {transaction_id} was sent (bank request {post['id']}) although {ban.reason}."
                )
        # A transfer that may have been sent before goes out as it was first ordered, whatever its row says by then.
        orders = evidence.orders_of.get(transaction_id, [])
        if post["amount_cents"] not in {cents for one in orders for cents in (one.amount_cents, one.approved_cents)}:
            yield violation(f"Transaction {transaction_id} was sent with an amount that it never had when it was.")
        if transaction_id in evidence.human.changed:
            continue
        transaction = evidence.transactions.get(transaction_id)
        if transaction is None:
            yield violation(f"A request was sent for transaction {transaction_id}, which does not exist.")
            continue
        if transaction.claims == 0 or transaction.batch_status == "draft":
            yield violation(
                f"Transaction {transaction_id} was sent, but no worker claimed batch {transaction.batch_id}."
            )
        if transaction.request_id is None:
            yield violation(f"Transaction {transaction_id} was sent, but it has no disbursement request.")
        if post["amount_cents"] != transaction.amount_cents:
            yield violation(f"Transaction {transaction_id} was sent with a different amount than it has.")
    for transaction_id, times in requests.items():
        transaction = evidence.transactions.get(transaction_id)
        started = transaction.started if transaction else len(evidence.orders_of.get(transaction_id, []))
        if times > started:
            yield violation(
                f"The bank received {times} requests for transaction {transaction_id}, "
                f"but only {started} attempts are recorded."
            )
    for order in evidence.orders:
        if order.batch_status != "processing" or not order.is_leased:
            yield violation(
                f"Transaction {order.transaction_id} was sent from batch {order.batch_id}, which was "
                f"'{order.batch_status}' and {'' if order.is_leased else 'not '}leased."
            )
        if order.request_id is None:
            yield violation(f"Transaction {order.transaction_id} was sent for no disbursement request.")


def _sent_without_funds(evidence: Evidence, periods: Sequence[SendBan]) -> Iterator[Violation]:
    """A transfer that the bank really refuses for lack of funds was sent beyond what the account had."""
    for post in evidence.posts:
        transaction_id = int(post["reference"] or "")
        transaction = evidence.transactions.get(transaction_id)
        is_refused = post["status"] == HTTPStatus.UNPROCESSABLE_ENTITY and post["fault"] is None
        if transaction is None or not is_refused or transaction.failure_reason != "insufficient_funds":
            continue
        for period in periods:
            if period.forbids(post["id"], transaction_id):
                yield Violation(
                    ViolationKind.SENT_WITHOUT_PERMISSION,
                    f"Transaction {transaction_id} was sent (bank request {post['id']}) although {period.reason}.",
                )


def _status_mismatches(evidence: Evidence) -> Iterator[Violation]:
    bank_statuses = {"submitted": {"accepted", "completed", "rejected", "returned"}}
    bank_statuses |= {"completed": {"completed", "returned"}, "returned": {"returned"}}
    for one in evidence.transactions.values():
        if one.status not in bank_statuses or _is_decided_by_person(evidence, one):
            continue
        if not any(moved["direction"] == "out" for moved in evidence.movements_of.get(one.id, [])):
            yield Violation(
                ViolationKind.LOST_PAYMENT,
                f"Transaction {one.id} is '{one.status}', but the bank never moved its money.",
            )
            continue
        transfer = evidence.transfer_of(one)
        # A bank that lost its records has no status any more; `final_invariants` checks that an alert says so.
        is_contradicted = one.status == "returned" and evidence.is_dishonored(one.id)
        if transfer is not None and transfer["status"] not in bank_statuses[one.status] and not is_contradicted:
            yield Violation(
                ViolationKind.STATUS_MISMATCH,
                f"Transaction {one.id} is '{one.status}', but the bank says '{transfer['status']}'.",
            )


def _ledger_mismatches(evidence: Evidence) -> Iterator[Violation]:
    for account in evidence.accounts:
        if account.balance_cents != account.ledger_cents:
            yield Violation(
                ViolationKind.LEDGER_MISMATCH,
                f"Account {account.id} has a balance of {account.balance_cents} cents, but its ledger entries sum to "
                f"{account.ledger_cents} cents.",
            )
    for one in evidence.transactions.values():
        yield from _wrong_entries(evidence, one)
    for request in evidence.requests.values():
        if (request.status == "paid") != (request.completed > 0) and request.id not in evidence.human.requests:
            yield Violation(
                ViolationKind.LEDGER_MISMATCH,
                f"Disbursement request {request.id} is '{request.status}' with {request.completed} completed "
                "transactions.",
            )


def _wrong_entries(evidence: Evidence, one: Transaction) -> Iterable[Violation]:
    entries = evidence.entries_of.get(one.id, [])
    kinds = [entry.kind for entry in entries]
    account_id = evidence.account_of(one)
    expected = LEDGER_KINDS.get(one.status, []) if account_id is not None else []
    if sorted(kinds) != expected and one.id not in evidence.corrections and not _is_decided_by_person(evidence, one):
        yield Violation(
            ViolationKind.LEDGER_MISMATCH,
            f"Transaction {one.id} is '{one.status}', but its ledger entries are {kinds}.",
        )
    signs = {"disbursement": -1, "reversal": 1}
    moved = {moved["amount_cents"] for moved in evidence.movements_of.get(one.id, [])}
    for entry in entries:
        # What the legacy worker sent is booked for the request that it had when auto-heal first saw it.
        is_elsewhere = entry.account_id != account_id and (
            one.id in evidence.orders_of or one.id not in evidence.human.changed
        )
        if is_elsewhere or (
            entry.amount_cents * signs.get(entry.kind, 0) not in moved
            and one.id not in evidence.human.settled_against_bank
        ):
            yield Violation(
                ViolationKind.LEDGER_MISMATCH,
                f"Transaction {one.id} has a {entry.kind} of {entry.amount_cents} cents on account "
                f"{entry.account_id}, which is not what the bank moved.",
            )


def _is_decided_by_person(evidence: Evidence, one: Transaction) -> bool:
    """Whether a transaction's status is what a person wrote into it, or settled it as against the bank."""
    human = evidence.human
    return human.is_written_by_hand(one.id, one.status) or one.id in human.settled_against_bank
