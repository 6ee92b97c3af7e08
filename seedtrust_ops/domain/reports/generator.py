"""Generates requested reports: claim, build, store, then email and status in one transaction.

A bad request fails alone and its requester is notified; if storage is unavailable, the request is requeued. A worker
that crashes leaves its request to be claimed again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.outbox import Attachment, Email, enqueue_emails
from seedtrust_ops.domain.reports.authority import ReportNotAllowed, require_authority
from seedtrust_ops.domain.reports.file_builder import BuiltReport, build_report
from seedtrust_ops.domain.reports.report_kinds import prepare_report, report_title
from seedtrust_ops.domain.reports.request_queue import (
    MAX_TRIES,
    ClaimedRequest,
    ClaimLost,
    RequestNotClaimable,
    claim_next_request,
    claim_request_by_id,
    read_params,
    record_emailed,
    record_failed,
    requeue_request,
)
from seedtrust_ops.email_addresses import InvalidEmailAddress, to_ascii_address
from seedtrust_ops.errors import SeedTrustError, TransientError
from seedtrust_ops.ports.object_storage import ReportStorage

DRAIN_SECONDS = 50.0
"""docs/rules.md, section 6: no further request is started after this; the next run continues."""
MAX_ATTACHMENT_BYTES = 5 * 1024 * 1024
"""Larger files are sent as a link (docs/rules.md, section 6)."""


class RequesterUnreachable(SeedTrustError):
    """The requester cannot be emailed, neither the report nor the reason."""


@dataclass(frozen=True)
class GeneratedReport:
    """A report that was built, stored and queued for email; `location` is its URI in storage."""

    request: ClaimedRequest
    built: BuiltReport
    location: str
    waited_seconds: float


@dataclass(frozen=True)
class RequestFailure:
    """A request that was not fulfilled, and why. It failed permanently unless `will_retry` is true."""

    request: ClaimedRequest
    reason: str
    will_retry: bool


def generate_reports(
    sessions: Sessions, storage: ReportStorage, *, zone: str, seconds: float = DRAIN_SECONDS
) -> Iterator[GeneratedReport | RequestFailure]:
    """Generate reports until no request is free or `seconds` have passed; users take turns.

    Any number of workers may run at once.

    Args:
        sessions: the application database.
        storage: where the files are stored.
        zone: the office's time zone; reports show local times.
        seconds: no further request is started after this.
    """
    end = monotonic() + seconds
    while monotonic() < end and (request := run_in_transaction(sessions, claim_next_request)) is not None:
        try:
            yield _generate(sessions, storage, request, zone)
        except ClaimLost:
            # This worker took too long and another one has claimed the request: the other result counts.
            continue


def dry_run_report(sessions: Sessions, request: ClaimedRequest, zone: str) -> BuiltReport:
    """Validate and build a report without storing, recording or sending anything.

    Raises:
        SeedTrustError: why the request would fail.
        TransientError: why it would be retried.
    """
    _check_request(request)
    with TemporaryDirectory(prefix="report-") as folder:
        return _build(sessions, request, zone, Path(folder))


def generate_report(
    sessions: Sessions, storage: ReportStorage, request_id: int, *, zone: str
) -> GeneratedReport | RequestFailure:
    """Generate the report of one request by id, even if it failed before or is waiting to retry.

    Raises:
        RequestNotClaimable: it cannot be claimed, or another worker claims it meanwhile.
    """
    request = run_in_transaction(sessions, lambda session: claim_request_by_id(session, request_id))
    try:
        return _generate(sessions, storage, request, zone)
    except ClaimLost:
        raise RequestNotClaimable(
            f"Another worker claimed report request {request_id} meanwhile, and its result counts. See the request."
        ) from None


def _generate(
    sessions: Sessions, storage: ReportStorage, request: ClaimedRequest, zone: str
) -> GeneratedReport | RequestFailure:
    try:
        _check_request(request)
        with TemporaryDirectory(prefix="report-") as folder:
            built = _build(sessions, request, zone, Path(folder))
            key = f"reports/{request.kind}/{request.id}/{request.token}/{built.filename}"
            storage.put_file(key, built.path, built.media_type)
            email = _report_email(request, built, key)
            try:
                run_in_transaction(sessions, lambda session: _record_generated(session, request, email))
            except (ClaimLost, ReportNotAllowed):
                storage.delete(key)
                raise
    except TransientError as error:
        if request.tries < MAX_TRIES:
            run_in_transaction(sessions, lambda session: requeue_request(session, request))
            return RequestFailure(request, str(error), will_retry=True)
        return _fail(sessions, request, f"{error} Failed permanently after {request.tries} attempts.")
    except RequesterUnreachable as error:
        reason = str(error)
        run_in_transaction(sessions, lambda session: record_failed(session, request, reason))
        return RequestFailure(request, reason, will_retry=False)
    except SeedTrustError as error:
        return _fail(sessions, request, str(error))
    waited = (datetime.now(UTC) - request.requested_at).total_seconds()
    return GeneratedReport(request, built, storage.uri(key), waited)


def _check_request(request: ClaimedRequest) -> None:
    if not request.is_active:
        raise RequesterUnreachable("The user who requested this report is no longer active, so it was not generated.")
    try:
        to_ascii_address(request.email)
    except InvalidEmailAddress as error:
        raise RequesterUnreachable(
            f"The email address of the user who requested this report can't be used: {error}. Correct it and request "
            "the report again."
        ) from None
    if request.attempts_exhausted:
        raise _AttemptsExhausted(
            f"Generating the report was interrupted {MAX_TRIES} times before it finished. Request a shorter period, or "
            "contact operations."
        )


class _AttemptsExhausted(SeedTrustError):
    """Every worker that claimed the request crashed."""


def _build(sessions: Sessions, request: ClaimedRequest, zone: str, folder: Path) -> BuiltReport:
    with sessions() as session:
        # Several statements read the totals and the rows, which must agree with each other.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        params = read_params(session, request)
        require_authority(session, request.user_id, request.kind, params)
        report = prepare_report(session, request.kind, params, zone)
        return build_report(session, report, request.format, folder)


def _report_email(request: ClaimedRequest, built: BuiltReport, key: str) -> Email:
    attached = built.size <= MAX_ATTACHMENT_BYTES
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
            "stored_file": None if attached else {"key": key, "filename": built.filename},
        },
        attachment=Attachment(built.filename, built.media_type, built.path.read_bytes()) if attached else None,
    )


def _record_generated(session: Session, request: ClaimedRequest, email: Email) -> None:
    # Building may have taken minutes, in which the user was deactivated or removed from the case.
    require_authority(session, request.user_id, request.kind, read_params(session, request))
    record_emailed(session, request)
    enqueue_emails(session, [email])


def _fail(sessions: Sessions, request: ClaimedRequest, reason: str) -> RequestFailure:
    email = Email(
        dedupe_key=f"report-failed:{request.id}:{request.user_id}",
        kind="report-failed",
        recipient_id=request.user_id,
        recipient_email=request.email,
        variables={
            "report_title": report_title(request.kind),
            "request_id": request.id,
            "requested_at": request.requested_at.isoformat(),
            "reason": reason.replace("\0", ""),
        },
    )

    def record(session: Session) -> None:
        record_failed(session, request, reason)
        enqueue_emails(session, [email])

    run_in_transaction(sessions, record)
    return RequestFailure(request, reason, will_retry=False)
