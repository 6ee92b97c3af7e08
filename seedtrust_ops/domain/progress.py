"""How far a run has come, kept in JobRun's `result` until the run ends and its own result takes that place.

A run that JobRun does not have yet, or that it knows the end of, keeps what it has.
"""

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from seedtrust_ops.tables import JobRun


def record_progress(session: Session, run_id: str, *, done: int, total: int) -> None:
    """Record that `done` of `total` steps of a run are behind it."""
    session.execute(
        update(JobRun)
        .where(JobRun.run_id == run_id, JobRun.resolution.is_(None))
        .values(result={"progress": {"done": done, "total": total}}, updated_at=func.now())
    )
