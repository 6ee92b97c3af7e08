"""Health of the work that people wait for: report requests, overdue disbursement requests, and the outbox.

Emails that fail permanently have alerts of the same rule as the outbox, opened in `domain/outbox/email_sink`.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, case, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import Finding
from seedtrust_ops.domain.approvals.by_date import FIRST_DATE
from seedtrust_ops.domain.approvals.writer import has_returned_payment
from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.outbox.email_sink import NOTIFICATIONS_FAILING
from seedtrust_ops.domain.outbox.store import Destination
from seedtrust_ops.domain.sql_ranges import seconds_between
from seedtrust_ops.formatting import format_duration, pluralize, single_line
from seedtrust_ops.severity import Severity
from seedtrust_ops.tables import Case, DisbursementRequest, Notification, OutgoingEvent, ReportRequest, User

REPORTS_WAITING = "reports_waiting"
DRS_OVERDUE = "drs_overdue"
PENDING_REPORT = 1
MAX_NAMED_REQUESTS = 10
_ON_HOLD = "on hold"
_NOT_SKIPPED = "approvable, but no run of dr_auto_approval has approved them"
# The age of an infinite date is no number.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_EVENTS = {
    Destination.POSTHOG: ("PostHog events", "POSTHOG_HOST, POSTHOG_API_KEY", "PostHog"),
    Destination.INTERNAL_API: ("internal API statuses", "INTERNAL_API_URL, INTERNAL_API_KEY", "the internal API"),
    Destination.ALERT_URLS: ("chat notifications", "ALERT_URLS", "the service"),
}


def reports_waiting(session: Session, *, max_wait_seconds: float) -> list[Finding]:
    """Find whether a user has waited for a report for more than `max_wait_seconds`.

    Users take turns, so a wait counts from the user's oldest pending request or their last finished report, whichever
    is later: the long queue of one user is no incident while their reports arrive.
    """
    pending = (
        select(
            ReportRequest.user_id,
            func.count().label("number"),
            func.min(ReportRequest.requested_at).label("since"),
        )
        .where(ReportRequest.status == PENDING_REPORT)
        .group_by(ReportRequest.user_id)
        .subquery("pending")
    )
    finished = select(func.max(ReportRequest.finished_at)).where(ReportRequest.user_id == pending.c.user_id)
    # `greatest` ignores null: the last report of a user who never had one.
    waits_since = func.greatest(pending.c.since, finished.scalar_subquery())
    number, seconds = session.execute(
        select(func.sum(pending.c.number), seconds_between(func.min(waits_since), func.now()))
    ).one()
    if not number or seconds <= max_wait_seconds:
        return []
    return [
        Finding(
            REPORTS_WAITING,
            "report requests",
            Severity.HIGH,
            f"{number} report request{' is' if number == 1 else 's are'} waiting, and a user has waited for "
            f"{format_duration(float(seconds))}. Check the last runs of report_generation and the ticks of its "
            "schedule; S3 or the mail server may be down. The requests are processed automatically once it runs again.",
        )
    ]


def drs_overdue(session: Session, *, max_overdue_seconds: float) -> list[Finding]:
    """Find pending requests that are more than `max_overdue_seconds` past their own date, and why each was skipped.

    A request that a person has put on hold waits on purpose: it is a finding of its own, for the daily digest.
    """
    # The request's own date and status alone decide, and no join may lose a row: a rule that shared the condition of
    # the approving jobs would miss whatever they skip.
    reason = case(
        (DisbursementRequest.on_hold, _ON_HOLD),
        (Case.status == "closed", "of a closed case"),
        (User.is_active.is_not(True), "to an inactive payee"),
        (has_returned_payment(), "whose payment came back"),
        (DisbursementRequest.auto_authorize_at < FIRST_DATE, f"whose date is before {FIRST_DATE.year}, a typing error"),
        else_=_NOT_SKIPPED,
    ).label("reason")
    age = func.extract("epoch", func.now() - func.greatest(DisbursementRequest.auto_authorize_at, _EARLIEST))
    rows = session.execute(
        select(
            reason,
            func.count().label("number"),
            func.max(age).label("seconds"),
            func.array_agg(aggregate_order_by(DisbursementRequest.id, DisbursementRequest.auto_authorize_at))[
                1:MAX_NAMED_REQUESTS
            ].label("first"),
        )
        .outerjoin(Case, Case.id == DisbursementRequest.case_id)
        .outerjoin(User, User.id == DisbursementRequest.payee_id)
        .where(
            DisbursementRequest.status == "pending",
            DisbursementRequest.auto_authorize_at < func.now() - timedelta(seconds=max_overdue_seconds),
        )
        .group_by(reason)
        .order_by(reason)
    ).all()
    overdue = [row for row in rows if row.reason != _ON_HOLD]
    found = []
    if overdue:
        number = sum(row.number for row in overdue)
        found.append(
            Finding(
                DRS_OVERDUE,
                "disbursement requests",
                Severity.HIGH,
                f"{pluralize(number, 'disbursement request is', 'disbursement requests are')} overdue for approval by "
                f"more than {format_duration(max_overdue_seconds)}, the oldest by "
                f"{format_duration(max(float(row.seconds) for row in overdue))}: "
                f"{'; '.join(_describe_overdue(row) for row in overdue)}. Approve, deny or correct the skipped ones in "
                "the platform. If others remain, check the last runs of dr_auto_approval and the ticks of its "
                "schedule, then launch the job manually.",
            )
        )
    found += [
        Finding(
            DRS_OVERDUE,
            "disbursement requests on hold",
            Severity.MEDIUM,
            f"{_describe_overdue(row)}: pending for more than {format_duration(max_overdue_seconds)} past their date. "
            "Approve or deny them in the platform once the reason for the hold is gone.",
        )
        for row in rows
        if row.reason == _ON_HOLD
    ]
    return found


def _describe_overdue(row: Row[*tuple[Any, ...]]) -> str:
    ids = ", ".join(str(number) for number in row.first)
    more = f" and {row.number - len(row.first)} more" if row.number > len(row.first) else ""
    return f"{row.number} {row.reason} ({ids}{more})"


def notifications_failing(
    session: Session, *, max_wait_seconds: float, destinations: Collection[Destination]
) -> list[Finding]:
    """Find emails, and events for `destinations`, that have waited for more than `max_wait_seconds`."""
    found = _waiting_emails(session, max_wait_seconds)
    waiting = session.execute(
        select(OutgoingEvent.destination, func.count().label("number"))
        .where(
            OutgoingEvent.status == "queued",
            OutgoingEvent.destination.in_([destination.value for destination in destinations]),
            OutgoingEvent.created_at < func.now() - timedelta(seconds=max_wait_seconds),
        )
        .group_by(OutgoingEvent.destination)
    )
    for row in waiting:
        subject, variables, service = _EVENTS[Destination(row.destination)]
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                subject,
                Severity.HIGH,
                f"{row.number} {subject} queued for more than {format_duration(max_wait_seconds)}. Check "
                f"{variables} and the service. They are sent automatically once {service} accepts them.",
            )
        )
    return found


def _waiting_emails(session: Session, max_wait_seconds: float) -> list[Finding]:
    waiting = session.execute(
        select(Notification.kind, func.count().label("number"))
        .where(
            Notification.status == "queued",
            Notification.created_at < func.now() - timedelta(seconds=max_wait_seconds),
        )
        .group_by(Notification.kind)
    ).all()
    known = sum(row.number for row in waiting if row.kind in KINDS)
    unknown = {row.kind: row.number for row in waiting if row.kind not in KINDS}
    found = []
    if known:
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                "outbox",
                Severity.HIGH,
                f"{pluralize(known, 'email has', 'emails have')} been queued for more than "
                f"{format_duration(max_wait_seconds)}. Check SMTP_HOST and the mail server. Queued emails are sent "
                "automatically once it accepts them.",
            )
        )
    if unknown:
        found.append(
            Finding(
                NOTIFICATIONS_FAILING,
                "unknown kinds of email",
                Severity.HIGH,
                f"{pluralize(sum(unknown.values()), 'email has', 'emails have')} been queued for more than "
                f"{format_duration(max_wait_seconds)}, of kinds that this release does not know: "
                f"{single_line(', '.join(sorted(unknown)), 200)}. They are sent automatically by a release that does; "
                "deploy it.",
            )
        )
    return found
