"""The dry run of `report_generation`: which requests it would fulfill, and with which result."""

from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.reports.generator import DRAIN_SECONDS, dry_run_report
from seedtrust_ops.domain.reports.request_queue import ClaimedRequest, claim_next_request
from seedtrust_ops.domain.shadow_mode.decisions import Decision, undecided_requests
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_reports
from seedtrust_ops.domain.shadow_mode.rollback_session import DryRun
from seedtrust_ops.errors import SeedTrustError, TransientError

GENERATE, FAIL = "generate report", "fail report"


def report_subject(request_id: int) -> str:
    """Return the subject under which decisions name a report request."""
    return f"report request {request_id}"


def dry_run_reports(sessions: Sessions, job: str, *, zone: str, seconds: float = DRAIN_SECONDS) -> list[Decision]:
    """Return what `report_generation` would do with the undecided requests; starts no request after `seconds`.

    The claims are made in a dry run that is rolled back before any file is built, so no row stays locked.
    """
    with sessions() as session:
        undecided = undecided_requests(session, job)
    if not undecided:
        return []
    dry_run = DryRun(sessions, lambda session: undo_reports(session, undecided))
    claimed = dry_run.run(lambda dry_sessions: run_in_transaction(dry_sessions, _claim_all))
    end = monotonic() + seconds
    decisions = []
    for request in claimed:
        if monotonic() >= end:
            break
        try:
            built = dry_run_report(sessions, request, zone)
        except TransientError:
            # A live run would retry it; here the next evaluation does.
            continue
        except SeedTrustError as error:
            decisions.append(Decision(report_subject(request.id), FAIL, {"kind": request.kind, "reason": str(error)}))
        else:
            detail = {"kind": request.kind, "format": request.format, "rows": built.rows}
            decisions.append(Decision(report_subject(request.id), GENERATE, detail))
    return decisions


def _claim_all(session: Session) -> list[ClaimedRequest]:
    claimed: list[ClaimedRequest] = []
    while (request := claim_next_request(session)) is not None:
        claimed.append(request)
    return claimed
