"""JobRun and job errors (platform tables), which all of the company's dashboards read.

`monitoring/` writes them from Dagster's run records; jobs do not write them.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, PlatformTable


class JobRun(PlatformTable):
    """One run of one task; `run_id` is the Dagster run, `task_name` the Dagster job."""

    __tablename__ = "job_runs"
    __table_args__ = (Index(None, "status", "queued_at"), Index(None, "task_name", "queued_at"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[str] = mapped_column(unique=True)
    task_name: Mapped[str]
    status: Mapped[str]
    resolution: Mapped[str | None]
    arguments: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[str | None]
    priority: Mapped[int] = mapped_column(INT, server_default="0")
    retries: Mapped[int] = mapped_column(INT, server_default="0")
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ErrorRecord(PlatformTable):
    """One failure of a task or component, with its severity."""

    __tablename__ = "errors"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_run_id: Mapped[int | None] = mapped_column(ForeignKey(JobRun.id))
    source: Mapped[str]
    severity: Mapped[str]
    exception_type: Mapped[str]
    message: Mapped[str]
    traceback: Mapped[str | None]
    context: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    occurred_at: Mapped[datetime] = mapped_column(server_default=func.now())
