"""Finds the report requests without a shadow decision. Separate from `report_dry_runs`, which is slow to import."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import INITIAL_LOOKBACK, evaluation_times
from seedtrust_ops.tables import ReportRequest, ShadowDecision

MAX_REQUESTS = 100


def undecided_requests(session: Session, job: str) -> list[int]:
    """Return the oldest undecided request ids, at most MAX_REQUESTS, regardless of their current status."""
    times = evaluation_times(session, job)
    since = (times.first if times is not None else func.now()) - INITIAL_LOOKBACK
    decided = select(ShadowDecision.id).where(
        ShadowDecision.job == job, ShadowDecision.subject == func.concat("report request ", ReportRequest.id)
    )
    query = select(ReportRequest.id).where(ReportRequest.requested_at >= since, ~decided.exists())
    return list(session.scalars(query.order_by(ReportRequest.requested_at, ReportRequest.id).limit(MAX_REQUESTS)))
