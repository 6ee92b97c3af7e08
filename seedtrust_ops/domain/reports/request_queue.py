"""The queue of report requests: claims one at a time, so that no two workers hold the same one, and records results.

Users take turns (`claim_next_request`). A request whose worker crashed is claimed again after 10 minutes, at most three
times in total (docs/rules.md, section 6). A worker that resumes later finds that it has lost its claim.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, case, cast, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import ReportClaim, ReportRequest, User

PENDING, IN_PROGRESS, EMAILED, FAILED = 1, 2, 3, 4
STALE_AFTER = timedelta(minutes=10)
MAX_TRIES = 3
RETRY_DELAY = timedelta(minutes=1)
"""How long a request waits after an attempt that failed for a transient reason."""
MAX_USERS_TRIED = 20
"""More than there are workers: the turn of a user whose request another worker is claiming passes to the next user."""
MAX_KIND_CHARACTERS = 100
MAX_STORED_PARAMS_BYTES = 1_000
MAX_PARAMS_CHARACTERS = 10_000
"""No report takes parameters of even a tenth of this; users write them, and what is longer is not loaded."""
_PROGRAM_LIMIT_EXCEEDED = "54000"


class ClaimLost(Exception):
    """Another worker has claimed the request since, or it is finished."""


class RequestNotClaimable(SeedTrustError):
    """A person asked for one report request by id, and it cannot be claimed now."""


@dataclass(frozen=True)
class ClaimedRequest:
    """A request that only this worker may fulfill, and its requester; `tries` includes the current attempt."""

    id: int
    kind: str
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
            .where(*_is_free())
        )
        or 0
    )


def claim_next_request(session: Session) -> ClaimedRequest | None:
    """Claim the oldest free request of the user whose turn it is, or return None.

    A user's turn comes when their oldest request was made or their last report was started, whichever is later. So the
    requests of different users go oldest first, and who requests many waits behind everyone else after each.
    """
    for user_id in _users_in_turn(session):
        row = session.execute(
            _requests()
            .where(ReportRequest.user_id == user_id, *_is_free())
            .order_by(ReportRequest.requested_at, ReportRequest.id)
            .limit(1)
            .with_for_update(of=ReportRequest, skip_locked=True)
        ).one_or_none()
        if row is not None:
            return _claim(session, row)
    return None


def claim_request_by_id(session: Session, request_id: int) -> ClaimedRequest:
    """Claim one request by id: pending, waiting to retry, or failed.

    Raises:
        RequestNotClaimable: it does not exist, its report was sent, or a worker is on it.
    """
    row = session.execute(
        _requests(ReportRequest.status, and_(*_is_free()).label("is_free"))
        .where(ReportRequest.id == request_id)
        .with_for_update(of=ReportRequest)
    ).one_or_none()
    if row is None:
        raise RequestNotClaimable(f"Report request {request_id} does not exist. Check `report_id` in the run config.")
    if row.status == EMAILED:
        raise RequestNotClaimable(
            f"The report of request {request_id} was already sent. Request a new report in the web app."
        )
    if row.status == IN_PROGRESS and not row.is_free:
        raise RequestNotClaimable(
            f"Another worker is generating report request {request_id}. Wait for it; if that worker crashed, the "
            "request is claimed again after 10 minutes."
        )
    return _claim(session, row)


def read_params(session: Session, request: ClaimedRequest) -> object:
    """Return the request's parameters, not validated.

    They are not loaded by the claim: parameters that nothing can load must fail their own request, and no other.

    Raises:
        InvalidReportRequest: they are too long, or JSON that PostgreSQL can store and Python cannot read.
    """
    stored = ReportRequest.params
    is_short = func.pg_column_size(stored) <= MAX_STORED_PARAMS_BYTES
    try:
        text = session.scalar(
            select(case((is_short, func.left(cast(stored, Text), MAX_PARAMS_CHARACTERS)))).where(
                ReportRequest.id == request.id
            )
        )
        if text is not None and len(text) < MAX_PARAMS_CHARACTERS:
            return json.loads(text)
    except DBAPIError as error:
        # A number such as 1e100000 is short in the database, and PostgreSQL writes out all of its digits.
        if getattr(error.orig, "sqlstate", None) != _PROGRAM_LIMIT_EXCEEDED:
            raise
    except (ValueError, RecursionError):
        pass
    raise InvalidReportRequest("The report's parameters cannot be read. Request the report again.")


def _users_in_turn(session: Session) -> Sequence[int]:
    """Return the users with free requests, in the order of their turns, at most MAX_USERS_TRIED."""
    waiting = (
        select(ReportRequest.user_id, func.min(ReportRequest.requested_at).label("since"))
        .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
        .where(*_is_free())
        .group_by(ReportRequest.user_id)
        .subquery("waiting")
    )
    started = aliased(ReportRequest)
    last_start = select(func.max(started.started_at)).where(started.user_id == waiting.c.user_id).scalar_subquery()
    return session.scalars(
        select(waiting.c.user_id)
        # `greatest` ignores null: the last start of a user who never had a report.
        .order_by(func.greatest(waiting.c.since, last_start), waiting.c.user_id)
        .limit(MAX_USERS_TRIED)
    ).all()


def _requests(*columns: ColumnElement[Any] | Any) -> Select[*tuple[Any, ...]]:
    query: Select[*tuple[Any, ...]] = (
        select(
            ReportRequest.id,
            func.left(ReportRequest.kind, MAX_KIND_CHARACTERS).label("kind"),
            ReportRequest.format,
            ReportRequest.requested_at,
            ReportRequest.user_id,
            User.email,
            User.is_active,
            *columns,
        )
        .join(User, User.id == ReportRequest.user_id)
        .outerjoin(ReportClaim, ReportClaim.request_id == ReportRequest.id)
    )
    return query


def _claim(session: Session, row: Row[*tuple[Any, ...]]) -> ClaimedRequest:
    token = secrets.token_hex(8)
    tries = session.scalars(
        insert(ReportClaim)
        .values(request_id=row.id, token=token, tries=1)
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
    session.execute(
        update(ReportRequest).where(ReportRequest.id == row.id).values(status=IN_PROGRESS, started_at=func.now())
    )
    return ClaimedRequest(
        id=row.id,
        kind=row.kind,
        format=row.format,
        requested_at=row.requested_at,
        token=token,
        tries=tries,
        user_id=row.user_id,
        email=row.email,
        is_active=row.is_active,
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
    """Return the request to the queue, to be claimed after `RETRY_DELAY`; its tries stay counted.

    `started_at` stays, because it was its user's turn.
    """
    _lock_claim(session, request)
    session.execute(
        update(ReportClaim)
        .where(ReportClaim.request_id == request.id)
        .values(not_before=func.now() + RETRY_DELAY, token="")
    )
    _set(session, request, {"status": PENDING})


def _is_free() -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for a request to be claimed, for a query that joins its claim.

    `started_at` is a platform column, so a crashed legacy worker counts too.
    """
    return (
        # Of itself this adds nothing; the partial index on unfinished requests needs it.
        ReportRequest.status.in_((PENDING, IN_PROGRESS)),
        or_(
            and_(
                ReportRequest.status == PENDING,
                or_(ReportClaim.not_before.is_(None), ReportClaim.not_before <= func.now()),
            ),
            and_(
                ReportRequest.status == IN_PROGRESS,
                func.coalesce(ReportRequest.started_at, ReportRequest.requested_at) < func.now() - STALE_AFTER,
            ),
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
