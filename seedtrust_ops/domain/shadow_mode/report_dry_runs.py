"""The look in shadow of `report_generation`: which requests it would meet, and with what."""

from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.reports.generator import DRAIN_SECONDS, would_meet
from seedtrust_ops.domain.reports.request_queue import ClaimedRequest, claim_request
from seedtrust_ops.domain.shadow_mode.decisions import Decision
from seedtrust_ops.domain.shadow_mode.legacy_undo import undo_reports
from seedtrust_ops.domain.shadow_mode.rollback_session import Rehearsal
from seedtrust_ops.domain.shadow_mode.undecided_reports import undecided_requests
from seedtrust_ops.errors import SeedTrustError, TransientError

MAKE, FAIL = "make report", "fail report"


def subject_of(request_id: int) -> str:
    """Return what decisions call a report request."""
    return f"report request {request_id}"


def reports(sessions: Sessions, job: str, *, zone: str, seconds: float = DRAIN_SECONDS) -> list[Decision]:
    """Return what `report_generation` would make of the requests it has not decided about; none after `seconds`.

    The claims are made in a rehearsal that is over before anything is built: nobody waits for a row meanwhile.
    """
    with sessions() as session:
        wanted = undecided_requests(session, job)
    if not wanted:
        return []
    stage = Rehearsal(sessions, lambda session: undo_reports(session, wanted))
    claimed = stage.run(lambda stage_sessions: run_in_transaction(stage_sessions, _claim_all))
    end = monotonic() + seconds
    found = []
    for request in claimed:
        if monotonic() >= end:
            break
        try:
            built = would_meet(sessions, request, zone)
        except TransientError:
            # Live, it would be tried again; so it is here, by the next look.
            continue
        except SeedTrustError as error:
            found.append(Decision(subject_of(request.id), FAIL, {"kind": request.kind, "reason": str(error)}))
        else:
            detail = {"kind": request.kind, "format": request.format, "rows": built.rows}
            found.append(Decision(subject_of(request.id), MAKE, detail))
    return found


def _claim_all(session: Session) -> list[ClaimedRequest]:
    claimed: list[ClaimedRequest] = []
    while (request := claim_request(session)) is not None:
        claimed.append(request)
    return claimed
