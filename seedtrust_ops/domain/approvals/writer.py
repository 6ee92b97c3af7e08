"""Records approvals and writes their letters, in one statement however many they are.

Which requests are approved is the caller's: it brings the `UPDATE` and this wraps the letters around it.
"""

from dataclasses import dataclass

from sqlalchemy import CTE, ColumnElement, FromClause, SQLColumnExpression, func, literal, select, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningInsert, Update

from seedtrust_ops.tables import Case, CaseParty, DisbursementRequest, Notification, User

LETTER_KIND = "dr-approved"
ROWS_SHOWN = 50
_APPROVERS_LOCK = 7_305_402

Payee = aliased(User, name="payee")


@dataclass(frozen=True)
class ApprovedRequest:
    """One approved request, as people are shown it; the amount in cents."""

    request_id: int
    case_number: str
    payee_name: str
    category: str
    amount_cents: int
    approved_by: str


@dataclass(frozen=True)
class ApprovalReport:
    """What approving came to, or would have come to; amounts in cents."""

    count: int = 0
    amount_cents: int = 0
    letters: int = 0
    shown: tuple[ApprovedRequest, ...] = ()
    """The first of them by number, no more than fit on a screen."""


def is_approvable() -> tuple[SQLColumnExpression[bool], ...]:
    """Return the conditions, joins included, under which a request may be approved automatically at all.

    Pending, not on hold, of a case that is not closed, to a payee who is active.
    """
    return (
        DisbursementRequest.status == "pending",
        ~DisbursementRequest.on_hold,
        Case.id == DisbursementRequest.case_id,
        Case.status != "closed",
        Payee.id == DisbursementRequest.payee_id,
        Payee.is_active,
    )


def one_approver_at_a_time(session: Session) -> None:
    """Wait until no other run of ours approves, and keep others waiting until this transaction ends.

    Two runs that approve at once would lock the same requests in different orders and break each other's deadlocks.
    """
    session.execute(select(func.pg_advisory_xact_lock(_APPROVERS_LOCK)))


def record_approvals(session: Session, approving: Update) -> ApprovalReport:
    """Run `approving`, an update of requests without `RETURNING`, and write each approved request's letters with it.

    The letters go to the active ones among the case's intended parents, their representatives and its case manager;
    a letter that is there already is not written again.
    """
    approved = approving.returning(
        DisbursementRequest.id,
        DisbursementRequest.case_id,
        DisbursementRequest.payee_id,
        DisbursementRequest.category,
        DisbursementRequest.description,
        DisbursementRequest.amount_cents,
        DisbursementRequest.approved_at,
        DisbursementRequest.approved_by,
    ).cte("approved")
    written = _writing_letters(approved).cte("written")
    return _report(session, approved, select(func.count()).select_from(written).scalar_subquery())


def would_approve(session: Session, approvable: FromClause) -> ApprovalReport:
    """Return what approving would come to; nothing is changed.

    Args:
        session: any.
        approvable: rows of id, case_id, payee_id, category, amount_cents and approved_by.
    """
    return _report(session, approvable, literal(0))


def _report(session: Session, approved: FromClause, letters: ColumnElement[int]) -> ApprovalReport:
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
            letters.label("letters"),
        )
        .join(Case, Case.id == approved.c.case_id)
        .join(Payee, Payee.id == approved.c.payee_id)
        .order_by(approved.c.id)
        .limit(ROWS_SHOWN)
    ).all()
    if not rows:
        return ApprovalReport()
    return ApprovalReport(
        count=rows[0].requests,
        amount_cents=int(rows[0].cents),
        letters=rows[0].letters,
        shown=tuple(
            ApprovedRequest(row.id, row.case_number, row.full_name, row.category, row.amount_cents, row.approved_by)
            for row in rows
        ),
    )


def _writing_letters(approved: CTE) -> ReturningInsert[tuple[int]]:
    parties = (
        select(approved.c.id, CaseParty.user_id)
        .join(CaseParty, CaseParty.case_id == approved.c.case_id)
        .where(CaseParty.role.in_(("intended_parent", "ip_rep")))
    )
    managers = select(approved.c.id, Case.case_manager_id).join(Case, Case.id == approved.c.case_id)
    # A union, and not `union all`: who is party to a case in two roles gets one letter.
    told = union(parties, managers).subquery("told")
    letters = (
        select(
            func.concat("dr-approved:", approved.c.id, ":", User.id),
            literal(LETTER_KIND),
            User.id,
            User.email,
            literal(""),
            func.jsonb_build_object(
                *("case_number", Case.case_number),
                *("disbursement_request_id", approved.c.id),
                *("amount_cents", approved.c.amount_cents),
                *("category", approved.c.category),
                *("payee_name", Payee.full_name),
                *("approved_at", approved.c.approved_at),
                *("description", approved.c.description),
            ),
        )
        .select_from(told)
        .join(approved, approved.c.id == told.c.id)
        .join(User, User.id == told.c.user_id)
        .join(Case, Case.id == approved.c.case_id)
        .join(Payee, Payee.id == approved.c.payee_id)
        .where(User.is_active)
    )
    return (
        insert(Notification)
        .from_select(["dedupe_key", "kind", "recipient_id", "recipient_email", "subject", "variables"], letters)
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.id)
    )
