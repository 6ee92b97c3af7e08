"""Limits how many reports of one user may wait, and refuses the requests beyond that before any is claimed.

The web apps insert requests themselves, so the limit is kept where they are claimed. Whose turn it is among the others
is in `request_queue`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from seedtrust_ops.domain.notifications.notification_kinds import REPORTS_REFUSED
from seedtrust_ops.domain.outbox import Email, enqueue_emails
from seedtrust_ops.domain.reports.report_kinds import report_title
from seedtrust_ops.domain.reports.request_queue import FAILED, MAX_KIND_CHARACTERS, PENDING
from seedtrust_ops.email_addresses import is_email_address
from seedtrust_ops.tables import ReportClaim, ReportRequest, User

MAX_WAITING_REPORTS = 100
"""Of one user. It is an hour's work for a person, and a few minutes' for this job."""


@dataclass(frozen=True)
class RefusedRequests:
    """How many requests of one user were refused."""

    user_id: int
    count: int


def count_waiting_reports(session: Session, user_id: int) -> int:
    """Return how many requests of the user are pending."""
    return (
        session.scalar(
            select(func.count())
            .select_from(ReportRequest)
            .where(ReportRequest.user_id == user_id, ReportRequest.status == PENDING)
        )
        or 0
    )


def limit_waiting_reports(session: Session, today: date) -> Sequence[RefusedRequests]:
    """Fail the newest pending requests of each user who has more than MAX_WAITING_REPORTS, and queue the emails.

    Each request says why in `error`; the user gets one email a day about all of them.
    """
    users = session.execute(
        select(User.id, User.email)
        .join(ReportRequest, ReportRequest.user_id == User.id)
        .where(ReportRequest.status == PENDING)
        .group_by(User.id, User.email)
        .having(func.count() > MAX_WAITING_REPORTS)
        .order_by(User.id)
    ).all()
    return [_refuse_excess(session, user.id, user.email, today) for user in users]


def _refuse_excess(session: Session, user_id: int, email: str, today: date) -> RefusedRequests:
    excess = (
        select(ReportRequest.id)
        .where(
            ReportRequest.user_id == user_id,
            ReportRequest.status == PENDING,
            # One that waits to be retried was accepted before.
            ~select(ReportClaim).where(ReportClaim.request_id == ReportRequest.id).exists(),
        )
        .order_by(ReportRequest.requested_at, ReportRequest.id)
        .offset(MAX_WAITING_REPORTS)
    )
    refused = session.execute(
        update(ReportRequest)
        .where(ReportRequest.id.in_(excess), ReportRequest.status == PENDING)
        .values(
            status=FAILED,
            finished_at=func.now(),
            error=(
                f"Not accepted: {MAX_WAITING_REPORTS} of your reports were waiting already. Request it again when some "
                "of them have arrived."
            ),
        )
        .returning(
            ReportRequest.id,
            func.left(ReportRequest.kind, MAX_KIND_CHARACTERS).label("kind"),
            ReportRequest.requested_at,
        )
    ).all()
    if refused and is_email_address(email):
        rows = [
            {"request_id": str(row.id), "report": report_title(row.kind), "requested_at": row.requested_at}
            for row in sorted(refused)
        ]
        enqueue_emails(
            session,
            [
                Email(
                    dedupe_key=f"reports-refused:{user_id}:{today}",
                    kind=REPORTS_REFUSED.name,
                    recipient_id=user_id,
                    recipient_email=email,
                    variables=REPORTS_REFUSED.variables_for(today, rows),
                )
            ],
        )
    return RefusedRequests(user_id, len(refused))
