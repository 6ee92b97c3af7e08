"""Which report requests shadow has not decided about; apart from what builds reports, which is slow to load."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.decisions import FIRST_LOOK, looks_of
from seedtrust_ops.tables import ReportRequest, ShadowDecision

REQUESTS_A_LOOK = 100


def undecided_requests(session: Session, job: str) -> list[int]:
    """Return the requests to look at, whatever the legacy system made of them: the oldest, REQUESTS_A_LOOK at most."""
    looks = looks_of(session, job)
    since = (looks.first if looks is not None else func.now()) - FIRST_LOOK
    decided = select(ShadowDecision.id).where(
        ShadowDecision.job == job, ShadowDecision.subject == func.concat("report request ", ReportRequest.id)
    )
    query = select(ReportRequest.id).where(ReportRequest.requested_at >= since, ~decided.exists())
    return list(session.scalars(query.order_by(ReportRequest.requested_at, ReportRequest.id).limit(REQUESTS_A_LOOK)))
