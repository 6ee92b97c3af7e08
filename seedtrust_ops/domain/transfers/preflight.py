"""Preflight: checks the whole batch before any of it is sent.

`find_problems` is the rule, a pure function; `check_batch` loads the rows and records the failures. A transaction that
does not pass is `failed` with the reason, and the rest is sent.
See docs/decisions/preflight.md and docs/decisions/unknown-outcomes.md.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import CTE, ColumnElement, Subquery, and_, case, exists, func, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.evidence import (
    State,
    as_first_sent,
    has_evidence,
    is_in_flight,
    may_be_at_the_bank,
    needs_inquiry,
    require_inquiry_of_sent,
)
from seedtrust_ops.domain.transfers.leases import Lease, lock_lease, require_processing
from seedtrust_ops.domain.transfers.legacy_takeover import is_false_failure, is_unproven_failure, was_asked_about
from seedtrust_ops.domain.transfers.payee_names import find_payee_name_problem
from seedtrust_ops.domain.transfers.status_transitions import NOT_SENT_PREFIX, fail_transactions
from seedtrust_ops.tables import (
    Account,
    DisbursementRequest,
    HuntingtonBatch,
    HuntingtonTransaction,
    TransferAttempt,
    TransferEvidence,
)

MAX_AMOUNT_CENTS = 9_999_999_999
"""The largest amount that the bank accepts in one transfer (bank_api.yaml, TransferRequest.amount_cents)."""


@dataclass(frozen=True)
class Candidate:
    """A transaction to check, with the data that the checks need; amounts in cents."""

    transaction_id: int
    amount_cents: int
    payee_name: str
    routing_number: str
    account_number_problem: str | None
    request_id: int | None
    request_status: str | None
    request_amount_cents: int | None
    account_id: int | None
    conflicting_transaction_id: int | None
    """Another transaction for the same request that has paid it or may still pay it."""
    final_answer: str | None = None
    """What the bank has answered for good about this transaction, whose idempotency key is then spent."""
    first_sent_for: int | None = None
    """The request that it was first sent for, if the bank may have it already; the amount is then the one sent."""


def find_routing_number_problem(routing_number: str) -> str | None:
    """Return what is wrong with an ABA routing number, or None if it is valid.

    ABA check digit: the digits, weighted 3, 7, 1 in turn, must add up to a multiple of 10.
    """
    if not re.fullmatch(r"[0-9]{9}", routing_number):
        return "the routing number is not nine digits"
    weighted = sum(int(digit) * weight for digit, weight in zip(routing_number, (3, 7, 1) * 3, strict=True))
    if weighted % 10 or routing_number == "000000000":
        # The message omits the number: if the fields were swapped, it is an account number.
        return "the routing number fails its check digit"
    return None


def find_problems(candidates: Iterable[Candidate], available_cents: Mapping[int, int]) -> dict[int, str]:
    """Return why each candidate must not be sent, by transaction id; all others may be sent.

    Args:
        candidates: in sending order: if two share a request or compete for the rest of an account's balance, the first
            one is sent.
        available_cents: by account id, its balance less everything in flight for it.
    """
    remaining = dict(available_cents)
    requests_seen: dict[int, int] = {}
    problems: dict[int, str] = {}
    for one in candidates:
        problem = _find_own_problem(one)
        if problem is None and one.request_id in requests_seen:
            problem = (
                f"disbursement request {one.request_id} is in this batch twice: "
                f"transaction {requests_seen[one.request_id]} pays it"
            )
        if problem is None and one.account_id is not None and remaining.get(one.account_id, 0) < one.amount_cents:
            problem = (
                f"the case's account has {remaining.get(one.account_id, 0)} cents available after what is in flight, "
                f"and {one.amount_cents} cents are needed"
            )
        if problem is not None:
            problems[one.transaction_id] = f"{NOT_SENT_PREFIX}{problem}"
            continue
        if one.request_id is not None and one.account_id is not None:
            requests_seen[one.request_id] = one.transaction_id
            remaining[one.account_id] -= one.amount_cents
    return problems


def _find_own_problem(one: Candidate) -> str | None:
    routing = find_routing_number_problem(one.routing_number)
    if routing is not None:
        return routing
    if one.account_number_problem is not None:
        return one.account_number_problem
    if not 1 <= one.amount_cents <= MAX_AMOUNT_CENTS:
        return f"the amount of {one.amount_cents} cents is not between 1 and {MAX_AMOUNT_CENTS}"
    name = find_payee_name_problem(one.payee_name)
    if name is not None:
        return name
    if one.final_answer is not None:
        return (
            f"the bank has {one.final_answer} it before, and keeps that answer under its idempotency key. Put the "
            "payment into a batch as a new transaction"
        )
    if one.request_id is None:
        return "it has no disbursement request, so it is not approved"
    if one.first_sent_for not in (None, one.request_id):
        return (
            f"it was first sent for disbursement request {one.first_sent_for}, and that request may still arrive at "
            "the bank"
        )
    if one.request_status == "paid":
        return f"disbursement request {one.request_id} is already paid"
    if one.request_status != "approved":
        return f"disbursement request {one.request_id} is '{one.request_status}', not approved"
    if one.request_amount_cents != one.amount_cents:
        return (
            f"the amount is {one.amount_cents} cents, but disbursement request {one.request_id} "
            f"was approved for {one.request_amount_cents}"
        )
    if one.conflicting_transaction_id is not None:
        return (
            f"transaction {one.conflicting_transaction_id} may already have paid disbursement request {one.request_id}"
        )
    if one.account_id is None:
        return "its case has no account"
    return None


def check_batch(
    session: Session, lease: Lease, number_problems: Mapping[int, str], *, skip_locked: bool = False
) -> list[int]:
    """Check every pending transaction of the batch, record the failures, and return the ids that may be sent.

    The accounts are locked meanwhile, so that two batches cannot both spend an account's last cent.

    Args:
        session: a session with its own transaction.
        lease: the worker's lease on the batch.
        number_problems: the result of `account_numbers.find_account_number_problems`.
        skip_locked: whether to leave out what other applications hold locked, instead of waiting for it.

    Raises:
        LeaseLost, BatchStatusChanged: if this worker may no longer send the batch.
    """
    lock_lease(session, lease)
    require_processing(session, lease)
    require_inquiry_of_sent(session, lease.batch_id)
    own_pending = _is_pending_in(lease.batch_id)
    # Lock order: transactions before accounts, as everywhere.
    locked = set(
        session.scalars(
            select(HuntingtonTransaction.id)
            .where(own_pending)
            .order_by(HuntingtonTransaction.id)
            .with_for_update(skip_locked=skip_locked)
        )
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
        .with_for_update(skip_locked=skip_locked)
    )
    available: dict[int, int] = {row.id: row.balance_cents for row in session.execute(accounts)}
    for account_id, cents in _in_flight_cents(session, lease.batch_id, available):
        available[account_id] -= cents
    candidates = [
        one
        for one in _candidates(session, lease.batch_id, number_problems)
        if one.transaction_id in locked and (one.account_id is None or one.account_id in available)
    ]
    problems = find_problems(candidates, available)
    fail_transactions(session, problems, from_status="pending")
    return [one.transaction_id for one in candidates if one.transaction_id not in problems]


def _is_pending_in(batch_id: int) -> ColumnElement[bool]:
    return and_(HuntingtonTransaction.batch_id == batch_id, HuntingtonTransaction.status == "pending")


def _in_flight(own_batch_id: int | None) -> Subquery:
    """Return every transfer that may still move money, as rows of transaction, request, account and cents.

    That is what evidence says is in flight; what another batch that is being processed is about to send; and what the
    legacy worker may have sent, until auto-heal has recorded evidence of it. Pending transactions of the own batch are
    among them only if they may be at the bank already.
    """
    by_evidence = (
        select(
            TransferEvidence.transaction_id,
            func.coalesce(
                TransferEvidence.disbursement_request_id, HuntingtonTransaction.disbursement_request_id
            ).label("disbursement_request_id"),
            TransferEvidence.account_id,
            TransferEvidence.amount_cents,
        )
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.id == TransferEvidence.transaction_id)
        .where(needs_inquiry(), is_in_flight())
    )
    being_processed = exists().where(
        HuntingtonBatch.id == HuntingtonTransaction.batch_id, HuntingtonBatch.status == "processing"
    )
    without_evidence = (
        select(
            HuntingtonTransaction.id,
            HuntingtonTransaction.disbursement_request_id,
            Account.id,
            HuntingtonTransaction.amount_cents,
        )
        .join(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .where(
            or_(
                HuntingtonTransaction.status.in_(("processing", "submitted")),
                and_(
                    HuntingtonTransaction.status == "pending",
                    HuntingtonTransaction.batch_id.is_distinct_from(own_batch_id),
                    being_processed,
                ),
                is_false_failure(HuntingtonTransaction),
                and_(is_unproven_failure(), ~was_asked_about()),
            ),
            ~has_evidence().where(TransferEvidence.state != State.NOT_MOVED.value),
        )
    )
    return union_all(by_evidence, without_evidence).subquery("in_flight")


def _in_flight_cents(session: Session, own_batch_id: int, account_ids: Collection[int]) -> list[tuple[int, int]]:
    in_flight = _in_flight(own_batch_id)
    own_pending = select(HuntingtonTransaction.id).where(_is_pending_in(own_batch_id))
    rows = session.execute(
        select(in_flight.c.account_id, func.sum(in_flight.c.amount_cents))
        # The candidates themselves are subtracted one by one as they pass.
        .where(in_array(in_flight.c.account_id, account_ids), in_flight.c.transaction_id.not_in(own_pending))
        .group_by(in_flight.c.account_id)
    )
    return [(account_id, int(cents)) for account_id, cents in rows]


def transfers_in_the_way(own_batch_id: int | None) -> Subquery:
    """Return every transaction that has paid its request or may still pay it, as rows of transaction and request.

    Pending transactions of the own batch are among them only if they may be at the bank already.
    """
    in_flight = _in_flight(own_batch_id)
    completed = select(HuntingtonTransaction.id, HuntingtonTransaction.disbursement_request_id).where(
        HuntingtonTransaction.status == "completed"
    )
    moved = select(TransferEvidence.transaction_id, TransferEvidence.disbursement_request_id).where(
        TransferEvidence.state == State.MOVED.value
    )
    return union_all(
        select(in_flight.c.transaction_id, in_flight.c.disbursement_request_id), completed, moved
    ).subquery("others")


def _conflicts(own_batch_id: int) -> CTE:
    """Return, by pending transaction of the batch, another one that has paid or may still pay the same request.

    All of them in one pass: the platform has no index by request, so a lookup per row would scan the whole table each
    time.
    """
    own = aliased(HuntingtonTransaction)
    others = select(transfers_in_the_way(own_batch_id)).cte("others").prefix_with("MATERIALIZED")
    return (
        select(own.id.label("id"), func.min(others.c.transaction_id).label("transaction_id"))
        .join(others, others.c.disbursement_request_id == own.disbursement_request_id)
        .where(own.batch_id == own_batch_id, own.status == "pending", others.c.transaction_id != own.id)
        .group_by(own.id)
        .cte("conflicts")
        # Once, also before PostgreSQL has statistics of new tables: it would compute them again for each row.
        .prefix_with("MATERIALIZED")
    )


def _candidates(session: Session, batch_id: int, number_problems: Mapping[int, str]) -> list[Candidate]:
    conflicts = _conflicts(batch_id)
    query = (
        select(
            HuntingtonTransaction.id,
            as_first_sent("amount_cents").label("amount_cents"),
            as_first_sent("payee_name").label("payee_name"),
            as_first_sent("routing_number").label("routing_number"),
            DisbursementRequest.id.label("request_id"),
            DisbursementRequest.status.label("request_status"),
            DisbursementRequest.amount_cents.label("request_amount_cents"),
            Account.id.label("account_id"),
            conflicts.c.transaction_id.label("conflicting_transaction_id"),
            TransferEvidence.disbursement_request_id.label("first_sent_for"),
            _final_answer().label("final_answer"),
        )
        .outerjoin(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .outerjoin(Account, Account.case_id == DisbursementRequest.case_id)
        .outerjoin(conflicts, conflicts.c.id == HuntingtonTransaction.id)
        .outerjoin(TransferEvidence, may_be_at_the_bank())
        .where(_is_pending_in(batch_id))
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
            conflicting_transaction_id=row.conflicting_transaction_id,
            first_sent_for=row.first_sent_for,
            final_answer=row.final_answer,
        )
        for row in session.execute(query)
    ]


def _final_answer() -> ColumnElement[str | None]:
    """Return what the bank has answered for good about a transaction that did not go through, or null."""
    evidence = aliased(TransferEvidence)
    had_it = (
        select(func.coalesce(evidence.bank_status, "had"))
        .where(
            evidence.transaction_id == HuntingtonTransaction.id,
            evidence.state == State.NOT_MOVED.value,
            evidence.bank_transfer_id.is_not(None),
        )
        .scalar_subquery()
    )
    was_refused = exists().where(
        TransferAttempt.transaction_id == HuntingtonTransaction.id, TransferAttempt.outcome == "refused"
    )
    return func.coalesce(had_it, case((was_refused, "refused")))
