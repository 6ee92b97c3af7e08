"""Notifies people of every transaction that failed, was rejected late or was returned.

A trigger writes `ops.transfer_failures` in the transaction that changes the status. This module turns its rows into
emails and the alert `batch_failures` when a batch run ends, and in every auto-heal, so no crash in between loses one.
See docs/decisions/failed-transfers.md.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alerts
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.notifications.notification_kinds import (
    TRANSFER_FAILED,
    TRANSFER_REJECTED,
    TRANSFER_RETURNED,
)
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.outbox.recipients import (
    Recipient,
    alert_nobody_to_notify,
    find_responsible,
    resolve_nobody_to_notify,
)
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.domain.transfers.failure_reasons import Cause, explain_failure
from seedtrust_ops.domain.transfers.leases import is_live
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.ports.bank import BankStatus
from seedtrust_ops.tables import (
    Alert,
    BatchLease,
    Case,
    DisbursementRequest,
    HuntingtonTransaction,
    TransferEvidence,
    TransferFailure,
)

BATCH_FAILURES = "batch_failures"
"""The rule of the alert that more of a batch failed than its people can deal with, or for reasons that are ours."""
MAX_FAILURES_WITHOUT_ALERT = 5
MIN_TRANSFERS_FOR_SHARE = 10
MAX_SHARE_WITHOUT_ALERT = 0.1
FAILURE_EMAIL_KINDS = (TRANSFER_FAILED.name, TRANSFER_REJECTED.name, TRANSFER_RETURNED.name)


@dataclass(frozen=True)
class _Failure:
    """A transaction that failed or was returned, with what an email says about it; cents."""

    id: int
    transaction_id: int
    batch_id: int
    generation: int
    is_of_run: bool
    status: str
    request_id: int | None
    amount_cents: int
    payee_name: str
    reason: str | None
    case_id: int | None
    case_number: str | None
    is_rejection: bool
    is_current: bool

    @property
    def batch_run(self) -> str:
        """The run of the batch, as dedupe keys name it."""
        return f"{self.batch_id}:{self.generation}"

    @property
    def row(self) -> dict[str, Any]:
        """The row of the table in an email."""
        return {
            "case_number": self.case_number,
            "request": None if self.request_id is None else str(self.request_id),
            # What failed, also if it has no request, or gets another one later.
            "transaction": str(self.transaction_id),
            "payee_name": self.payee_name,
            "amount_cents": self.amount_cents,
            "explanation": explain_failure(self.reason).text,
        }


def notify_of_failures(session: Session, alert_emails: Sequence[str]) -> int:
    """Queue the emails about all failures that nobody was notified of yet, and update their alerts.

    The failures of a batch run are one email per person, once the run's lease has ended. All others (a late rejection,
    a return, what a person wrote) are known when they happen. A failure that nobody can be emailed about stays owed: an
    alert lists it until somebody responsible is active.

    Args:
        session: a session with its own transaction.
        alert_emails: who is emailed if a case has no active person and there is no active admin.

    Returns:
        How many emails were queued.
    """
    # One at a time: two that each saw half of a batch's failures would queue two emails under one key.
    hold_lock(session, Lock.TRANSFER_FAILURES)
    failures = _read_failures(session)
    current = [one for one in failures if one.is_current]
    people = find_responsible(session, {one.case_id for one in current if one.case_id is not None}, alert_emails)
    queued = enqueue_emails(session, _emails(current, people, _batch_runs_notified_of(session, current)))
    owed = [one for one in current if not people[one.case_id]]
    _alert_owed(session, owed)
    done = {one.id for one in failures} - {one.id for one in owed}
    session.execute(
        update(TransferFailure)
        .where(in_array(TransferFailure.id, sorted(done)))
        .values(notified_at=func.clock_timestamp())
    )
    _open_batch_alerts(session, {one.batch_id for one in current})
    _resolve_batch_alerts(session)
    return queued


def has_failures_to_notify(session: Session) -> bool:
    """Return whether there are failures that nobody was notified of, and whose batch run has ended."""
    return bool(session.scalar(select(exists(TransferFailure.id).where(*_is_due()))))


def _is_due() -> tuple[ColumnElement[bool], ...]:
    run_goes_on = exists(BatchLease.batch_id).where(
        BatchLease.batch_id == TransferFailure.batch_id,
        BatchLease.generation == TransferFailure.generation,
        is_live(),
    )
    return TransferFailure.notified_at.is_(None), or_(~TransferFailure.is_of_run, ~run_goes_on)


def _read_failures(session: Session) -> list[_Failure]:
    query: Select[*tuple[Any, ...]] = (
        select(
            TransferFailure.id,
            TransferFailure.transaction_id,
            TransferFailure.batch_id,
            TransferFailure.generation,
            TransferFailure.is_of_run,
            TransferFailure.status,
            TransferFailure.disbursement_request_id,
            TransferFailure.amount_cents,
            TransferFailure.payee_name,
            TransferFailure.reason,
            Case.id,
            Case.case_number,
            func.coalesce(TransferEvidence.bank_status == BankStatus.REJECTED.value, False),
            # What was deleted still failed. What the bank has since reported otherwise did not.
            func.coalesce(HuntingtonTransaction.status == TransferFailure.status, True),
        )
        .outerjoin(DisbursementRequest, DisbursementRequest.id == TransferFailure.disbursement_request_id)
        .outerjoin(Case, Case.id == DisbursementRequest.case_id)
        .outerjoin(TransferEvidence, TransferEvidence.transaction_id == TransferFailure.transaction_id)
        .outerjoin(HuntingtonTransaction, HuntingtonTransaction.id == TransferFailure.transaction_id)
        .where(*_is_due())
        .order_by(TransferFailure.id)
    )
    return [_Failure(*row) for row in session.execute(query)]


def _batch_runs_notified_of(session: Session, failures: Collection[_Failure]) -> Set[str]:
    """Return which of the batch runs have had their emails: those about failures that were owed need other keys."""
    runs = {one.batch_run for one in failures if one.is_of_run}
    batches = sorted({one.batch_id for one in failures})
    notified = select(TransferFailure.batch_id, TransferFailure.generation).where(
        in_array(TransferFailure.batch_id, batches), TransferFailure.is_of_run, TransferFailure.notified_at.is_not(None)
    )
    return {f"{batch_id}:{generation}" for batch_id, generation in session.execute(notified.distinct())} & runs


def _alert_owed(session: Session, owed: Sequence[_Failure]) -> None:
    """Open an alert that lists what nobody can be emailed about, or resolve it if there is nothing."""
    for status, kind in (("failed", TRANSFER_FAILED), ("returned", TRANSFER_RETURNED)):
        ids = [one.transaction_id for one in owed if one.status == status]
        if ids:
            alert_nobody_to_notify(session, kind.name, pluralize(len(ids), f"{status} transaction"), ids)
        else:
            resolve_nobody_to_notify(session, kind.name)


def _emails(
    failures: Sequence[_Failure], people: Mapping[int | None, Sequence[Recipient]], notified_runs: Set[str]
) -> list[Email]:
    grouped: dict[tuple[str, int], dict[Recipient, list[_Failure]]] = defaultdict(lambda: defaultdict(list))
    first_by_hand: dict[int, int] = {}
    emails = []
    for one in failures:
        for person in people[one.case_id]:
            if one.status == "returned":
                emails.append(_returned_email(one, person))
            elif one.is_of_run and one.batch_run not in notified_runs:
                grouped[one.batch_run, one.batch_id][person].append(one)
            elif one.is_rejection:
                emails.append(_rejected_email(one, person))
            else:
                # Somebody has written it, perhaps into a hundred rows, or nobody was there when the run ended.
                first = first_by_hand.setdefault(one.batch_id, one.id)
                grouped[f"{one.batch_id}:after-{first}", one.batch_id][person].append(one)
    for (key, batch_id), by_person in grouped.items():
        for person, theirs in by_person.items():
            emails.append(
                Email(
                    dedupe_key=f"transfer-failed:{key}:{person.key}",
                    kind=TRANSFER_FAILED.name,
                    recipient_id=person.user_id,
                    recipient_email=person.email,
                    subject=f"{pluralize(len(theirs), 'payment')} of batch {batch_id} failed",
                    variables=TRANSFER_FAILED.variables_for(None, [one.row for one in theirs]),
                )
            )
    return emails


def _rejected_email(one: _Failure, person: Recipient) -> Email:
    return Email(
        dedupe_key=f"transfer-rejected:{one.transaction_id}:{person.key}",
        kind=TRANSFER_REJECTED.name,
        recipient_id=person.user_id,
        recipient_email=person.email,
        variables={**_facts(one), "explanation": explain_failure(one.reason).text},
    )


def _returned_email(one: _Failure, person: Recipient) -> Email:
    return Email(
        dedupe_key=f"transfer-returned:{one.transaction_id}:{person.key}",
        kind=TRANSFER_RETURNED.name,
        recipient_id=person.user_id,
        recipient_email=person.email,
        variables={**_facts(one), "return_code": one.reason or "no code"},
    )


def _facts(one: _Failure) -> dict[str, Any]:
    return {
        "case_number": one.case_number or "unknown",
        "disbursement_request_id": "none" if one.request_id is None else one.request_id,
        "transaction_id": one.transaction_id,
        "amount_cents": one.amount_cents,
        "payee_name": one.payee_name,
    }


def _open_batch_alerts(session: Session, batch_ids: Collection[int]) -> None:
    """Open the alert of each batch of which too much failed, or something for a reason that is ours."""
    totals = {
        row.batch_id: row.transactions
        for row in session.execute(
            select(HuntingtonTransaction.batch_id, func.count().label("transactions"))
            .where(in_array(HuntingtonTransaction.batch_id, batch_ids))
            .group_by(HuntingtonTransaction.batch_id)
        )
    }
    causes: dict[int, Counter[Cause]] = defaultdict(Counter)
    reasons: dict[int, set[str]] = defaultdict(set)
    failed = session.execute(
        select(
            HuntingtonTransaction.batch_id, HuntingtonTransaction.status, HuntingtonTransaction.failure_reason
        ).where(
            in_array(HuntingtonTransaction.batch_id, batch_ids),
            HuntingtonTransaction.status.in_(("failed", "returned")),
        )
    )
    for batch_id, status, reason in failed:
        cause = Cause.PAYEE if status == "returned" else explain_failure(reason).cause
        causes[batch_id][cause] += 1
        if cause is Cause.OURS:
            reasons[batch_id].add(reason or "no reason recorded")
    for batch_id, counted in causes.items():
        number, total = counted.total(), totals[batch_id]
        is_large_share = total >= MIN_TRANSFERS_FOR_SHARE and number > total * MAX_SHARE_WITHOUT_ALERT
        if number > MAX_FAILURES_WITHOUT_ALERT or is_large_share or counted[Cause.OURS]:
            open_alert(
                session,
                BATCH_FAILURES,
                f"batch {batch_id}",
                "HIGH",
                _describe_failures(batch_id, total, counted, sorted(reasons[batch_id])),
            )


def _describe_failures(batch_id: int, total: int, causes: Counter[Cause], our_reasons: Sequence[str]) -> str:
    counted = "; ".join(f"{cause.value}: {causes[cause]}" for cause in Cause if causes[cause])
    ours = f" Ours are: {'; '.join(our_reasons[:3])}." if our_reasons else ""
    return (
        f"{causes.total()} of {pluralize(total, 'transfer')} of batch {batch_id} failed or came back ({counted})."
        f"{ours} The people of each case are emailed; if nobody could be, `notifications_failing` is open. Remove the "
        "cause, and see that the payments are put into a new batch. It resolves itself once each of these requests is "
        "paid, in another batch, or no longer approved."
    )


def _resolve_batch_alerts(session: Session) -> None:
    """Resolve the alerts of batches whose failed payments have all been made good."""
    alerts = session.scalars(
        select(Alert.subject).where(Alert.rule == BATCH_FAILURES, Alert.resolved_at.is_(None))
    ).all()
    batches = {int(subject.removeprefix("batch ")): subject for subject in alerts}
    other = aliased(HuntingtonTransaction)
    is_made_good = or_(
        DisbursementRequest.status != "approved",
        exists(other.id).where(
            other.disbursement_request_id == DisbursementRequest.id,
            other.status.in_(("pending", "processing", "submitted", "completed")),
        ),
    )
    still_owed = session.scalars(
        select(HuntingtonTransaction.batch_id)
        .outerjoin(DisbursementRequest, DisbursementRequest.id == HuntingtonTransaction.disbursement_request_id)
        .where(
            in_array(HuntingtonTransaction.batch_id, batches),
            HuntingtonTransaction.status.in_(("failed", "returned")),
            # A payment without a request can't be made good: a person closes the alert.
            or_(DisbursementRequest.id.is_(None), and_(~is_made_good)),
        )
        .distinct()
    ).all()
    resolve_alerts(
        session, BATCH_FAILURES, [subject for batch_id, subject in batches.items() if batch_id not in still_owed]
    )
