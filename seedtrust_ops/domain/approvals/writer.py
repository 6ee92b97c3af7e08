"""Records approvals and queues their emails, in one statement regardless of their number.

The caller decides which requests to approve and passes the `UPDATE`; this module adds the emails to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    SQLColumnExpression,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    union,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningInsert, Update

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.locks import Lock, hold_lock
from seedtrust_ops.domain.outbox.recipients import alert_nobody_to_notify
from seedtrust_ops.domain.row_failures import RowFailure, is_row_failure, limit_lock_waits, write_separately
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.errors import TransientError
from seedtrust_ops.formatting import pluralize
from seedtrust_ops.tables import (
    Case,
    CaseParty,
    DisbursementRequest,
    HuntingtonTransaction,
    Notification,
    TransferEvidence,
    User,
)
from seedtrust_ops.tables.user_text import cut_text

NOTIFICATION_KIND = "dr-approved"
EMAILED_ROLES = ("intended_parent", "ip_rep")
"""The roles in a case whose users are emailed, in addition to its manager."""
MAX_ROWS_SHOWN = 50
MAX_NAMED = 5

Payee = aliased(User, name="payee")


@dataclass(frozen=True)
class ApprovedRequest:
    """One approved request, as shown to people; the amount is in cents."""

    request_id: int
    case_number: str
    payee_name: str
    category: str
    amount_cents: int
    approved_by: str


@dataclass(frozen=True)
class ApprovalReport:
    """What was approved, or would be in a dry run; amounts in cents."""

    count: int = 0
    amount_cents: int = 0
    emails: int = 0
    without_recipient: tuple[int, ...] = ()
    """The ids of the approved requests of whose case no intended parent, representative or manager is active."""
    shown: tuple[ApprovedRequest, ...] = ()
    """The first MAX_ROWS_SHOWN requests by id."""
    failures: Mapping[int, RowFailure] = field(default_factory=dict)
    """Why requests could not be approved although they are due, by id."""


class RequestsNotApproved(TransientError):
    """A row of some requests is locked or refused by a trigger, so they stay pending; all others were approved."""


def require_all_approved(report: ApprovalReport) -> None:
    """Make it known which due requests could not be approved.

    Raises:
        RequestsNotApproved: if there are any; the message names them.
    """
    if report.failures:
        shown = [f"request {one} ({failure.problem})" for one, failure in sorted(report.failures.items())[:MAX_NAMED]]
        more = f" and {len(report.failures) - len(shown)} more" if len(report.failures) > len(shown) else ""
        raise RequestsNotApproved(
            f"Not approved: {', '.join(shown)}{more}. They stay pending, and the next run tries again; all others were "
            "approved. If this repeats, find out which application holds the lock, or approve them in the platform."
        )


def is_approvable() -> tuple[SQLColumnExpression[bool], ...]:
    """Return the conditions, joins included, for a request to be eligible for automatic approval.

    The request is pending and not on hold, its case is not closed, its payee is active, and no payment of it came
    back.
    """
    return (
        DisbursementRequest.status == "pending",
        ~DisbursementRequest.on_hold,
        Case.id == DisbursementRequest.case_id,
        Case.status != "closed",
        Payee.id == DisbursementRequest.payee_id,
        Payee.is_active,
        ~has_returned_payment(),
    )


def has_returned_payment() -> ColumnElement[bool]:
    """Return the SQL condition that the bank returned a payment of the request; only a person may approve it again."""
    return or_(
        # One column: readers may not see all of them.
        exists(HuntingtonTransaction.id).where(
            HuntingtonTransaction.disbursement_request_id == DisbursementRequest.id,
            HuntingtonTransaction.status == "returned",
        ),
        # Whatever somebody has made of that transaction since.
        exists(TransferEvidence.transaction_id).where(
            TransferEvidence.disbursement_request_id == DisbursementRequest.id,
            or_(TransferEvidence.bank_status == "returned", TransferEvidence.settled_as == "returned"),
        ),
    )


def lock_approvals(session: Session) -> None:
    """Wait until no other run is approving, and keep others waiting until this transaction ends.

    Two concurrent runs could lock the same requests in different orders and deadlock.
    """
    hold_lock(session, Lock.APPROVALS)


def record_approvals(session: Session, update: Update) -> ApprovalReport:
    """Execute `update`, an UPDATE of requests without RETURNING, and queue the emails for each approved request.

    The emails go to the case's intended parents, their representatives and its case manager, if they are active. An
    email that is already queued is not queued again.
    """
    approved = update.returning(
        DisbursementRequest.id,
        DisbursementRequest.case_id,
        DisbursementRequest.payee_id,
        DisbursementRequest.category,
        DisbursementRequest.description,
        DisbursementRequest.amount_cents,
        DisbursementRequest.approved_at,
        DisbursementRequest.approved_by,
    ).cte("approved")
    written = _insert_notifications(approved).cte("written")
    report = _report(
        session,
        approved,
        select(func.count()).select_from(written).scalar_subquery(),
        select(func.array_agg(approved.c.id)).where(~_has_recipient(approved)).scalar_subquery(),
    )
    if report.without_recipient:
        what = pluralize(len(report.without_recipient), "approved disbursement request")
        alert_nobody_to_notify(session, NOTIFICATION_KIND, what, report.without_recipient)
    return report


class Approve(Protocol):
    """Approves what is due, all in one statement or `separately`."""

    def __call__(self, session: Session, *, separately: bool) -> ApprovalReport: ...


def approve(sessions: Sessions, work: Approve) -> ApprovalReport:
    """Approve what is due in one transaction; if a row of one request fails it, once more without those requests."""
    try:
        return run_in_transaction(sessions, lambda session: work(session, separately=False))
    except DBAPIError as error:
        if not is_row_failure(error):
            raise
    return run_in_transaction(sessions, lambda session: work(session, separately=True))


def record_separately(session: Session, update: Update, request_ids: Sequence[int]) -> ApprovalReport:
    """Execute `update` as `record_approvals` does, without the requests of which a row cannot be written.

    Its `failures` name them. Called after `record_approvals` has failed and its transaction was rolled back.
    """
    limit_lock_waits(session)
    failures: dict[int, RowFailure] = {}
    reports = write_separately(
        session,
        request_ids,
        lambda ids: record_approvals(session, update.where(in_array(DisbursementRequest.id, ids))),
        failures,
    )
    return ApprovalReport(
        count=sum(one.count for one in reports),
        amount_cents=sum(one.amount_cents for one in reports),
        emails=sum(one.emails for one in reports),
        without_recipient=tuple(request for one in reports for request in one.without_recipient),
        shown=tuple(row for one in reports for row in one.shown)[:MAX_ROWS_SHOWN],
        failures=failures,
    )


def preview_approvals(session: Session, approvable: FromClause) -> ApprovalReport:
    """Return what would be approved, without changing anything.

    Args:
        session: any session.
        approvable: rows with id, case_id, payee_id, category, amount_cents and approved_by.
    """
    return _report(session, approvable, literal(0), null())


def _report(
    session: Session, approved: FromClause, emails: ColumnElement[int], without_recipient: ColumnElement[Any]
) -> ApprovalReport:
    rows = session.execute(
        select(
            approved.c.id,
            approved.c.category,
            approved.c.amount_cents,
            approved.c.approved_by,
            Case.case_number,
            Payee.full_name,
            func.count().over().label("requests"),
            func.sum(approved.c.amount_cents).over().label("cents"),
            emails.label("emails"),
            without_recipient.label("without_recipient"),
        )
        .join(Case, Case.id == approved.c.case_id)
        .join(Payee, Payee.id == approved.c.payee_id)
        .order_by(approved.c.id)
        .limit(MAX_ROWS_SHOWN)
    ).all()
    if not rows:
        return ApprovalReport()
    return ApprovalReport(
        count=rows[0].requests,
        amount_cents=int(rows[0].cents),
        emails=rows[0].emails,
        without_recipient=tuple(sorted(rows[0].without_recipient or ())),
        shown=tuple(
            ApprovedRequest(row.id, row.case_number, row.full_name, row.category, row.amount_cents, row.approved_by)
            for row in rows
        ),
    )


def _has_recipient(approved: CTE) -> ColumnElement[bool]:
    """Return the SQL condition that an approved request has somebody who is emailed about it."""
    return or_(
        exists(User.id).where(
            CaseParty.case_id == approved.c.case_id,
            CaseParty.role.in_(EMAILED_ROLES),
            User.id == CaseParty.user_id,
            User.is_active,
        ),
        exists(User.id).where(Case.id == approved.c.case_id, User.id == Case.case_manager_id, User.is_active),
    )


def _insert_notifications(approved: CTE) -> ReturningInsert[tuple[int]]:
    parties = (
        select(approved.c.id, CaseParty.user_id)
        .join(CaseParty, CaseParty.case_id == approved.c.case_id)
        .where(CaseParty.role.in_(EMAILED_ROLES))
    )
    managers = select(approved.c.id, Case.case_manager_id).join(Case, Case.id == approved.c.case_id)
    # `union` rather than `union all`: a person with two roles in a case gets one email.
    recipients = union(parties, managers).subquery("recipients")
    emails = (
        select(
            func.concat("dr-approved:", approved.c.id, ":", User.id),
            literal(NOTIFICATION_KIND),
            User.id,
            cut_text(User.email),
            literal(""),
            func.jsonb_build_object(
                *("case_number", cut_text(Case.case_number)),
                *("disbursement_request_id", approved.c.id),
                *("amount_cents", approved.c.amount_cents),
                *("category", cut_text(approved.c.category)),
                *("payee_name", cut_text(Payee.full_name)),
                *("approved_at", approved.c.approved_at),
                *("description", cut_text(approved.c.description)),
            ),
        )
        .select_from(recipients)
        .join(approved, approved.c.id == recipients.c.id)
        .join(User, User.id == recipients.c.user_id)
        .join(Case, Case.id == approved.c.case_id)
        .join(Payee, Payee.id == approved.c.payee_id)
        .where(User.is_active)
    )
    return (
        insert(Notification)
        .from_select(["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"], emails)
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.id)
    )
