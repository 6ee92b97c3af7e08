"""The queue of report requests: claims one at a time, so that no two workers hold the same one, and records results.

A request whose worker crashed is claimed again after 10 minutes, at most three times in total (docs/rules.md, section
6). A worker that resumes later finds that it has lost its claim.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import ReportClaim, ReportRequest, User

PENDING, IN_PROGRESS, EMAILED, FAILED = 1, 2, 3, 4
STALE_AFTER = timedelta(minutes=10)
MAX_TRIES = 3
RETRY_DELAY = timedelta(minutes=1)
"""How long a request waits after an attempt that failed for a transient reason."""


class ClaimLost(Exception):
    """Another worker has claimed the request since, or it is finished."""


class RequestNotClaimable(SeedTrustError):
    """A person asked for one report request by id, and it cannot be claimed now."""


@dataclass(frozen=True)
class ClaimedRequest:
    """A request that only this worker may fulfill, and its requester; `tries` includes the current attempt."""

    id: int
    kind: str
    params: object
    format: str
    requested_at: datetime
    token: str
    tries: int
    user_id: int
    email: str
    is_active: bool

    @property
    def attempts_exhausted(self) -> bool:
        """Whether all allowed attempts were cut short before this one."""
        return self.tries > MAX_TRIES


def count_claimable_requests(session: Session) -> int:
    """Return how many requests can be claimed now."""
    return (
        session.scalar(
            select(func.count())
            .select_from(ReportRequest)
            .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
            .where(_is_free())
        )
        or 0
    )


def claim_next_request(session: Session) -> ClaimedRequest | None:
    """Claim the oldest free request, or return None. Requests that others are claiming are skipped."""
    row = session.execute(
        select(ReportRequest, User.email, User.is_active)
        .join(User, User.id == ReportRequest.user_id)
        .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
        .where(_is_free())
        .order_by(ReportRequest.requested_at, ReportRequest.id)
        .limit(1)
        .with_for_update(of=ReportRequest, skip_locked=True)
    ).one_or_none()
    return _claim(session, *row) if row is not None else None


def claim_request_by_id(session: Session, request_id: int) -> ClaimedRequest:
    """Claim one request by id: pending, waiting to retry, or failed.

    Raises:
        RequestNotClaimable: it does not exist, its report was sent, or a worker is on it.
    """
    row = session.execute(
        select(ReportRequest, User.email, User.is_active, _is_free())
        .join(User, User.id == ReportRequest.user_id)
        .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
        .where(ReportRequest.id == request_id)
        .with_for_update(of=ReportRequest)
    ).one_or_none()
    if row is None:
        raise RequestNotClaimable(f"Report request {request_id} does not exist. Check `report_id` in the run config.")
    request, email, is_active, is_free = row
    if request.status == EMAILED:
        raise RequestNotClaimable(
            f"The report of request {request_id} was already sent. Request a new report in the web app."
        )
    if request.status == IN_PROGRESS and not is_free:
        raise RequestNotClaimable(
            f"Another worker is generating report request {request_id}. Wait for it; if that worker crashed, the "
            "request is claimed again after 10 minutes."
        )
    return _claim(session, request, email, is_active)


def _claim(session: Session, request: ReportRequest, email: str, is_active: bool) -> ClaimedRequest:
    token = secrets.token_hex(8)
    tries = session.scalars(
        insert(ReportClaim)
        .values(request_id=request.id, token=token, tries=1)
        .on_conflict_do_update(
            index_elements=["request_id"],
            set_={
                "token": token,
                "tries": ReportClaim.tries + 1,
                "claimed_at": func.now(),
                "not_before": None,
            },
        )
        .returning(ReportClaim.tries)
    ).one()
    request.status = IN_PROGRESS
    request.started_at = func.now()
    session.flush()
    return ClaimedRequest(
        id=request.id,
        kind=request.kind,
        params=request.params,
        format=request.format,
        requested_at=request.requested_at,
        token=token,
        tries=tries,
        user_id=request.user_id,
        email=email,
        is_active=is_active,
    )


def record_emailed(session: Session, request: ClaimedRequest) -> None:
    """Record that the report was emailed; raises ClaimLost if another worker has the request, as do the others here."""
    _delete_claim(session, request)
    _set(session, request, {"status": EMAILED, "finished_at": func.now(), "error": None})


def record_failed(session: Session, request: ClaimedRequest, error: str) -> None:
    """Record that the request failed, and why."""
    _delete_claim(session, request)
    # PostgreSQL text cannot hold NUL, and a parameter quoted in the message may contain one.
    text = error.replace("\0", "\N{REPLACEMENT CHARACTER}")
    _set(session, request, {"status": FAILED, "finished_at": func.now(), "error": text})


def requeue_request(session: Session, request: ClaimedRequest) -> None:
    """Return the request to the queue, to be claimed after `RETRY_DELAY`; its tries stay counted."""
    _lock_claim(session, request)
    session.execute(
        update(ReportClaim)
        .where(ReportClaim.request_id == request.id)
        .values(not_before=func.now() + RETRY_DELAY, token="")
    )
    _set(session, request, {"status": PENDING, "started_at": None})


def _is_free() -> ColumnElement[bool]:
    """Whether a request may be claimed. `started_at` is a platform column, so a crashed legacy worker counts too."""
    return or_(
        and_(
            ReportRequest.status == PENDING,
            or_(ReportClaim.not_before.is_(None), ReportClaim.not_before <= func.now()),
        ),
        and_(
            ReportRequest.status == IN_PROGRESS,
            func.coalesce(ReportRequest.started_at, ReportRequest.requested_at) < func.now() - STALE_AFTER,
        ),
    )


def _lock_claim(session: Session, request: ClaimedRequest) -> None:
    """Lock the request in the same order as claiming; raises ClaimLost if another worker has it."""
    session.execute(select(ReportRequest.id).where(ReportRequest.id == request.id).with_for_update())
    token = session.scalar(select(ReportClaim.token).where(ReportClaim.request_id == request.id).with_for_update())
    if token != request.token:
        raise ClaimLost(f"Report request {request.id} was claimed by another worker.")


def _delete_claim(session: Session, request: ClaimedRequest) -> None:
    _lock_claim(session, request)
    session.execute(delete(ReportClaim).where(ReportClaim.request_id == request.id))


def _set(session: Session, request: ClaimedRequest, values: dict[str, object]) -> None:
    session.execute(update(ReportRequest).where(ReportRequest.id == request.id).values(values))
