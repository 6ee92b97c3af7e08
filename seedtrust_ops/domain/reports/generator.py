"""Meets report requests, oldest first: claim, build, store, and then, in one transaction, the letter and the status.

What is wrong with one request fails that one, and its requester is told; storage that is away for a moment puts it
back. A worker that dies leaves its request to be taken again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox import Attachment, Email, enqueue_emails
from seedtrust_ops.domain.reports.builder import BuiltReport, build_report
from seedtrust_ops.domain.reports.report_kinds import prepare_report, title_of
from seedtrust_ops.domain.reports.request_queue import (
    MOST_TRIES,
    ClaimedRequest,
    ClaimLost,
    ReportNotToBeMade,
    claim_named_request,
    claim_request,
    record_emailed,
    record_failed,
    requeue,
)
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.ports.object_storage import Storage

DRAIN_SECONDS = 50.0
"""Design, section 6: after so long no further request is begun; the next minute's run goes on."""
LARGEST_ATTACHMENT = 5 * 1024 * 1024
"""What is larger is sent as a link (design, section 6)."""
LINK_LASTS = timedelta(days=7)


class RequesterUnreachable(SeedTrustError):
    """Whoever asked for the report can't be sent one, and can't be told so."""


@dataclass(frozen=True)
class MadeReport:
    """A request that was met."""

    request: ClaimedRequest
    built: BuiltReport
    where: str
    waited_seconds: float


@dataclass(frozen=True)
class UnmetRequest:
    """A request that was not met, and why; it failed for good, or `again` is true and it is tried again."""

    request: ClaimedRequest
    reason: str
    again: bool


def generate_reports(
    sessions: Sessions, storage: Storage, *, zone: str, seconds: float = DRAIN_SECONDS
) -> Iterator[MadeReport | UnmetRequest]:
    """Meet requests until none is free or `seconds` have passed; any number of workers may do so at once.

    Args:
        sessions: the application's database.
        storage: where files go.
        zone: the office's time zone; reports show its wall clock.
        seconds: after so long none is begun any more.
    """
    end = monotonic() + seconds
    while monotonic() < end and (request := run_in_transaction(sessions, claim_request)) is not None:
        try:
            yield _meet(sessions, storage, request, zone)
        except ClaimLost:
            # It took longer than anybody waits, and another worker has it: that one's word counts.
            continue


def would_meet(sessions: Sessions, request: ClaimedRequest, zone: str) -> BuiltReport:
    """Check and build a request's report as if it were to be met; nothing is stored, written or sent.

    Raises:
        SeedTrustError: what the request would fail for; a `TransientError`: why it would be tried again.
    """
    _check(request)
    with TemporaryDirectory(prefix="report-") as folder:
        return _build(sessions, request, zone, Path(folder))


def meet_named_request(
    sessions: Sessions, storage: Storage, request_id: int, *, zone: str
) -> MadeReport | UnmetRequest:
    """Meet the one request that a person names, though it failed before or its pause is not over.

    Raises:
        ReportNotToBeMade: when it can't be taken, or another worker takes it meanwhile.
    """
    request = run_in_transaction(sessions, lambda session: claim_named_request(session, request_id))
    try:
        return _meet(sessions, storage, request, zone)
    except ClaimLost:
        raise ReportNotToBeMade(
            f"Another worker took report request {request_id} meanwhile, and its word counts. See the request."
        ) from None


def _meet(sessions: Sessions, storage: Storage, request: ClaimedRequest, zone: str) -> MadeReport | UnmetRequest:
    try:
        _check(request)
        with TemporaryDirectory(prefix="report-") as folder:
            built = _build(sessions, request, zone, Path(folder))
            key = f"reports/{request.kind}/{request.id}/{request.token}/{built.filename}"
            storage.put_file(key, built.path, built.media_type)
            letter = _letter(storage, request, built, key)
            try:
                run_in_transaction(sessions, lambda session: _record_made(session, request, letter))
            except ClaimLost:
                storage.delete(key)
                raise
    except TransientError as trouble:
        if request.tries < MOST_TRIES:
            run_in_transaction(sessions, lambda session: requeue(session, request))
            return UnmetRequest(request, str(trouble), again=True)
        return _fail(sessions, request, f"{trouble} It was tried {request.tries} times.")
    except RequesterUnreachable as error:
        reason = str(error)
        run_in_transaction(sessions, lambda session: record_failed(session, request, reason))
        return UnmetRequest(request, reason, again=False)
    except SeedTrustError as error:
        return _fail(sessions, request, str(error))
    waited = (datetime.now(UTC) - request.requested_at).total_seconds()
    return MadeReport(request, built, storage.place(key), waited)


def _check(request: ClaimedRequest) -> None:
    if not request.is_active:
        raise RequesterUnreachable("The user who asked for this report is not active any more, so it was not made.")
    if "@" not in request.email:
        raise RequesterUnreachable(
            "The user who asked for this report has no email address, so it could not be sent. Add one and ask again."
        )
    if request.used_up:
        raise _BrokenOff(
            f"Work on the report was broken off {MOST_TRIES} times, each time before it was ready. Ask for a shorter "
            "period, or tell operations."
        )


class _BrokenOff(SeedTrustError):
    """Every worker that took the request died."""


def _build(sessions: Sessions, request: ClaimedRequest, zone: str, folder: Path) -> BuiltReport:
    with sessions() as session:
        # Totals and rows are read by several statements, and must be of one moment.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        report = prepare_report(session, request.kind, request.params, zone)
        return build_report(session, report, request.format, folder)


def _letter(storage: Storage, request: ClaimedRequest, built: BuiltReport, key: str) -> Email:
    attached = built.size <= LARGEST_ATTACHMENT
    return Email(
        dedupe_key=f"report:{request.id}:{request.user_id}",
        kind="report",
        recipient_id=request.user_id,
        recipient_email=request.email,
        variables={
            "report_title": built.report.title,
            "about": built.report.about,
            "rows": built.rows,
            "requested_at": request.requested_at.isoformat(),
            "link": None if attached else storage.link(key, built.filename),
            "link_expires_at": None if attached else (datetime.now(UTC) + LINK_LASTS).isoformat(),
        },
        attachment=Attachment(built.filename, built.media_type, built.path.read_bytes()) if attached else None,
    )


def _record_made(session: Session, request: ClaimedRequest, letter: Email) -> None:
    record_emailed(session, request)
    enqueue_emails(session, [letter])


def _fail(sessions: Sessions, request: ClaimedRequest, reason: str) -> UnmetRequest:
    letter = Email(
        dedupe_key=f"report-failed:{request.id}:{request.user_id}",
        kind="report-failed",
        recipient_id=request.user_id,
        recipient_email=request.email,
        variables={
            "report_title": title_of(request.kind),
            "request_id": request.id,
            "requested_at": request.requested_at.isoformat(),
            "reason": reason.replace("\0", ""),
        },
    )

    def record(session: Session) -> None:
        record_failed(session, request, reason)
        enqueue_emails(session, [letter])

    run_in_transaction(sessions, record)
    return UnmetRequest(request, reason, again=False)
