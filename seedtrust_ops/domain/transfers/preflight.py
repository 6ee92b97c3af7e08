"""What is checked before anything of a batch is sent, for the whole batch at once.

`decide` is the rule, a pure function; `check_batch` brings it the rows and records what fails. What fails is
`failed` with the reason, and the rest goes on.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.transfers.leases import Lease, lock_lease, require_processing
from seedtrust_ops.domain.transfers.status_transitions import fail_transactions
from seedtrust_ops.tables import Account, DisbursementRequest, HuntingtonBatch, HuntingtonTransaction, TransferAttempt

MAXIMUM_CENTS = 9_999_999_999
"""The most that the bank takes in one transfer (bank_api.yaml, TransferRequest.amount_cents)."""
LONGEST_NAME = 35
"""The longest payee name that the bank takes (bank_api.yaml, counterparty.name)."""
_FALSE_FAILURE_REASON = "timeout%"
"""How the legacy worker wrote failures that were none: the bank had not answered in time (design, section 4)."""
NOT_SENT = "not sent: "
"""How the reason begins why a transaction failed here, and not at the bank."""
STRAY_AGE = timedelta(days=1)
"""How long a request that the bank did not know may still arrive, for whoever is paid in the place of it."""


@dataclass(frozen=True)
class Candidate:
    """A transaction about to be sent, with what the checks need to know of it; amounts in cents."""

    transaction_id: int
    amount_cents: int
    payee_name: str
    routing_number: str
    account_number_problem: str | None
    request_id: int | None
    request_status: str | None
    request_amount_cents: int | None
    account_id: int | None
    rival_transaction_id: int | None
    """Another transaction for the same request that is under way, or whose truth is open."""


def routing_number_problem(routing_number: str) -> str | None:
    """Return what is wrong with an ABA routing number, None where it is right.

    The check digit is the ABA's: 3, 7 and 1 times the digits in turn add up to a multiple of 10.
    """
    if not re.fullmatch(r"[0-9]{9}", routing_number):
        return "the routing number is not nine digits"
    weighted = sum(int(digit) * weight for digit, weight in zip(routing_number, (3, 7, 1) * 3, strict=True))
    if weighted % 10 or routing_number == "000000000":
        # The number is left out: where the fields were swapped it is an account number.
        return "the routing number fails its check digit"
    return None


def decide(candidates: Iterable[Candidate], available_cents: Mapping[int, int]) -> dict[int, str]:
    """Return why each candidate must not be sent, by transaction id; those not named may be.

    Args:
        candidates: in the order in which they are to be sent: where two share a request or the last of an
            account's money, the first goes.
        available_cents: by account, its balance less all that is in flight for it.
    """
    left = dict(available_cents)
    requests_seen: dict[int, int] = {}
    problems: dict[int, str] = {}
    for one in candidates:
        problem = _problem_of_its_own(one)
        if problem is None and one.request_id in requests_seen:
            problem = (
                f"disbursement request {one.request_id} is in this batch twice: "
                f"transaction {requests_seen[one.request_id]} pays it"
            )
        if problem is None and one.account_id is not None and left.get(one.account_id, 0) < one.amount_cents:
            problem = (
                f"the case's account holds {left.get(one.account_id, 0)} cents beyond what is in flight, "
                f"and {one.amount_cents} cents are wanted"
            )
        if problem is not None:
            problems[one.transaction_id] = f"{NOT_SENT}{problem}"
            continue
        if one.request_id is not None and one.account_id is not None:
            requests_seen[one.request_id] = one.transaction_id
            left[one.account_id] -= one.amount_cents
    return problems


def _problem_of_its_own(one: Candidate) -> str | None:
    routing = routing_number_problem(one.routing_number)
    if routing is not None:
        return routing
    if one.account_number_problem is not None:
        return one.account_number_problem
    if not 1 <= one.amount_cents <= MAXIMUM_CENTS:
        return f"the amount of {one.amount_cents} cents is not between 1 and {MAXIMUM_CENTS}"
    name = one.payee_name.strip()
    if not name or len(one.payee_name) > LONGEST_NAME or not one.payee_name.isprintable():
        return f"the payee's name must be 1 to {LONGEST_NAME} printable characters"
    if one.request_id is None:
        return "it belongs to no disbursement request, so nobody has approved it"
    if one.request_status == "paid":
        return f"disbursement request {one.request_id} is paid already"
    if one.request_status != "approved":
        return f"disbursement request {one.request_id} is '{one.request_status}', not approved"
    if one.request_amount_cents != one.amount_cents:
        return (
            f"{one.amount_cents} cents are to be sent, but disbursement request {one.request_id} "
            f"was approved for {one.request_amount_cents}"
        )
    if one.rival_transaction_id is not None:
        return f"transaction {one.rival_transaction_id} may have paid disbursement request {one.request_id} already"
    if one.account_id is None:
        return "its case has no account"
    return None


def check_batch(session: Session, lease: Lease, number_problems: Mapping[int, str]) -> list[int]:
    """Check every pending transaction of the batch, record those that fail, and return the ids of the rest.

    The accounts concerned are locked meanwhile, so that two batches can't both spend an account's last cent.

    Args:
        session: a session in a transaction of its own.
        lease: the worker's lease on the batch.
        number_problems: what `account_numbers.account_number_problems` found.

    Raises:
        LeaseLost, BatchStatusChanged: when the batch is no longer this worker's to send.
    """
    lock_lease(session, lease)
    require_processing(session, lease)
    own_pending = and_(HuntingtonTransaction.batch_id == lease.batch_id, HuntingtonTransaction.status == "pending")
    # Transactions before accounts, as everywhere.
    session.execute(
        select(HuntingtonTransaction.id).where(own_pending).order_by(HuntingtonTransaction.id).with_for_update()
    )
    cases = (
        select(DisbursementRequest.case_id)
        .join(HuntingtonTransaction, HuntingtonTransaction.disbursement_request_id == DisbursementRequest.id)
        .where(own_pending)
    )
    accounts = (
        select(Account.id, Account.balance_cents)
        .where(Account.case_id.in_(cases))
        .order_by(Account.id)
        .with_for_update()
    )
    available: dict[int, int] = {row.id: row.balance_cents for row in session.execute(accounts)}
    for account_id, cents in _in_flight(session, lease.batch_id, cases):
        available[account_id] -= cents
    candidates = _candidates(session, lease.batch_id, number_problems)
    problems = decide(candidates, available)
    fail_transactions(session, problems, was="pending")
    return [one.transaction_id for one in candidates if one.transaction_id not in problems]


def is_false_failure(transaction: type[HuntingtonTransaction]) -> ColumnElement[bool]:
    """The condition that a failure is not the bank's word, but the legacy worker's that had no answer in time.

    Where we know the bank's transfer, the reason is the bank's own, whatever it says.
    """
    return and_(
        transaction.status == "failed",
        transaction.failure_reason.ilike(_FALSE_FAILURE_REASON),
        transaction.bank_transfer_id.is_(None),
    )


def _is_in_flight(transaction: type[HuntingtonTransaction], own_batch_id: int) -> ColumnElement[bool]:
    """The condition that a transaction may yet take money: under way, about to be, in doubt, or falsely failed.

    In doubt is also what is pending again because the bank did not know its key: a request that left may still
    arrive, however late. Where our own check has failed it since, it is in doubt for a day.
    """
    being_processed = exists().where(
        HuntingtonBatch.id == transaction.batch_id,
        HuntingtonBatch.status == "processing",
    )
    sent_before = exists().where(
        TransferAttempt.transaction_id == transaction.id, TransferAttempt.outcome == "unknown_to_bank"
    )
    failed_here = and_(
        transaction.status == "failed",
        transaction.failure_reason.startswith(NOT_SENT),
        transaction.bank_transfer_id.is_(None),
    )
    lately = TransferAttempt.finished_at > func.now() - STRAY_AGE
    return or_(
        transaction.status.in_(("processing", "submitted")),
        and_(transaction.status == "pending", transaction.batch_id != own_batch_id, or_(being_processed, sent_before)),
        and_(failed_here, sent_before.where(lately)),
        is_false_failure(transaction),
    )


def _in_flight(session: Session, own_batch_id: int, cases: Select[int]) -> list[tuple[int, int]]:
    rows = session.execute(
        select(Account.id, func.sum(HuntingtonTransaction.amount_cents))
        .join(DisbursementRequest, DisbursementRequest.case_id == Account.case_id)
        .join(HuntingtonTransaction, HuntingtonTransaction.disbursement_request_id == DisbursementRequest.id)
        .where(Account.case_id.in_(cases), _is_in_flight(HuntingtonTransaction, own_batch_id))
        .group_by(Account.id)
    )
    return [(account_id, int(cents)) for account_id, cents in rows]


def _candidates(session: Session, batch_id: int, number_problems: Mapping[int, str]) -> list[Candidate]:
    own_pending = and_(HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status == "pending")
    # One pass over all rivals: the platform has no index by request, and a look-up for each row would read
    # the whole table each time. A pending transaction of this batch is never among them.
    rival = aliased(HuntingtonTransaction)
    rivals = (
        select(rival.disbursement_request_id, func.min(rival.id).label("transaction_id"))
        .where(
            rival.disbursement_request_id.in_(select(HuntingtonTransaction.disbursement_request_id).where(own_pending)),
            or_(_is_in_flight(rival, batch_id), rival.status == "completed"),
        )
        .group_by(rival.disbursement_request_id)
        .subquery()
    )
    query = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.amount_cents,
            HuntingtonTransaction.payee_name,
            HuntingtonTransaction.routing_number,
            DisbursementRequest.id.label("request_id"),
            DisbursementRequest.status.label("request_status"),
            DisbursementRequest.amount_cents.label("request_amount_cents"),
            Account.id.label("account_id"),
            rivals.c.transaction_id.label("rival_transaction_id"),
        )
        .outerjoin(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .outerjoin(rivals, rivals.c.disbursement_request_id == DisbursementRequest.id)
        .where(own_pending)
        .order_by(HuntingtonTransaction.id)
    )
    return [
        Candidate(
            transaction_id=row.id,
            amount_cents=row.amount_cents,
            payee_name=row.payee_name,
            routing_number=row.routing_number,
            account_number_problem=number_problems.get(row.id),
            request_id=row.request_id,
            request_status=row.request_status,
            request_amount_cents=row.request_amount_cents,
            account_id=row.account_id,
            rival_transaction_id=row.rival_transaction_id,
        )
        for row in session.execute(query)
    ]
