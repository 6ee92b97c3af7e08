"""Takes report requests, so that no two workers ever hold one at once, and records what became of each.

A request whose worker died is taken again after 10 minutes, three times in all (design, section 6); a worker that
comes back later finds that it holds nothing any more.
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
TAKEN_FOR_DEAD_AFTER = timedelta(minutes=10)
MOST_TRIES = 3
PAUSE = timedelta(minutes=1)
"""How long a request waits whose try came to nothing through no fault of its own."""


class ClaimLost(Exception):
    """Another worker has the request by now, or it is finished."""


class ReportNotToBeMade(SeedTrustError):
    """A person named a report request that can't be met now."""


@dataclass(frozen=True)
class ClaimedRequest:
    """A request that this worker alone may meet, and who asked for it; `tries` counts this one."""

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
    def used_up(self) -> bool:
        """Whether every try that it may have was broken off before this one."""
        return self.tries > MOST_TRIES


def requests_waiting(session: Session) -> int:
    """Return how many requests can be taken now."""
    return (
        session.scalar(
            select(func.count())
            .select_from(ReportRequest)
            .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
            .where(_is_free())
        )
        or 0
    )


def claim_request(session: Session) -> ClaimedRequest | None:
    """Take the oldest request that is free, None where none is. Requests that others are taking are passed over."""
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


def claim_named_request(session: Session, request_id: int) -> ClaimedRequest:
    """Take the one request that a person names: one that waits, for whatever reason, or that failed.

    Raises:
        ReportNotToBeMade: when there is none, when it was met, or when a worker is on it.
    """
    row = session.execute(
        select(ReportRequest, User.email, User.is_active, _is_free())
        .join(User, User.id == ReportRequest.user_id)
        .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
        .where(ReportRequest.id == request_id)
        .with_for_update(of=ReportRequest)
    ).one_or_none()
    if row is None:
        raise ReportNotToBeMade(f"There is no report request {request_id}. Check the number in the run's config.")
    request, email, is_active, is_free = row
    if request.status == EMAILED:
        raise ReportNotToBeMade(
            f"Report request {request_id} was met, and its report is sent. Ask for a new one in the application."
        )
    if request.status == IN_PROGRESS and not is_free:
        raise ReportNotToBeMade(
            f"Report request {request_id} is being worked on. Wait for that; a worker that died is given up after 10 "
            "minutes."
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
    """Record that the request was met; raises ClaimLost where it is not ours any more, as the others here do."""
    _let_go(session, request)
    _set(session, request, {"status": EMAILED, "finished_at": func.now(), "error": None})


def record_failed(session: Session, request: ClaimedRequest, error: str) -> None:
    """Record that the request can't be met, and why."""
    _let_go(session, request)
    # PostgreSQL's text holds no NUL, and a parameter that is quoted in the sentence may.
    text = error.replace("\0", "\N{REPLACEMENT CHARACTER}")
    _set(session, request, {"status": FAILED, "finished_at": func.now(), "error": text})


def requeue(session: Session, request: ClaimedRequest) -> None:
    """Make the request pending again, to be taken after a pause; its tries stay counted."""
    _hold(session, request)
    session.execute(
        update(ReportClaim).where(ReportClaim.request_id == request.id).values(not_before=func.now() + PAUSE, token="")
    )
    _set(session, request, {"status": PENDING, "started_at": None})


def _is_free() -> ColumnElement[bool]:
    """Whether a request may be taken; `started_at` is the platform's own, so a legacy worker's dead work counts too."""
    return or_(
        and_(
            ReportRequest.status == PENDING,
            or_(ReportClaim.not_before.is_(None), ReportClaim.not_before <= func.now()),
        ),
        and_(
            ReportRequest.status == IN_PROGRESS,
            func.coalesce(ReportRequest.started_at, ReportRequest.requested_at) < func.now() - TAKEN_FOR_DEAD_AFTER,
        ),
    )


def _hold(session: Session, request: ClaimedRequest) -> None:
    """Lock the request, in the order in which claiming locks; raises ClaimLost where it is not ours any more."""
    session.execute(select(ReportRequest.id).where(ReportRequest.id == request.id).with_for_update())
    token = session.scalar(select(ReportClaim.token).where(ReportClaim.request_id == request.id).with_for_update())
    if token != request.token:
        raise ClaimLost(f"report request {request.id} was taken by another worker")


def _let_go(session: Session, request: ClaimedRequest) -> None:
    _hold(session, request)
    session.execute(delete(ReportClaim).where(ReportClaim.request_id == request.id))


def _set(session: Session, request: ClaimedRequest, values: dict[str, object]) -> None:
    session.execute(update(ReportRequest).where(ReportRequest.id == request.id).values(values))
