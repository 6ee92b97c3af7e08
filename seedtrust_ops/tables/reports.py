"""Report requests (a platform table) and the workers' claims on them.

The status of a request is a number: 1 pending, 2 in progress, 3 emailed, 4 failed.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from seedtrust_ops.tables.base import INT, SMALL, OpsTable, PlatformTable
from seedtrust_ops.tables.users_and_cases import User


class ReportRequest(PlatformTable):
    """A request for a report, with its status."""

    __tablename__ = "report_requests"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    kind: Mapped[str]
    params: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    format: Mapped[str] = mapped_column(server_default="xlsx")
    status: Mapped[int] = mapped_column(SMALL, server_default="1")
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]


class ReportClaim(OpsTable):
    """The number of tries of an unfinished request and the last worker's token; deleted when it is finished."""

    __tablename__ = "report_claims"

    request_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    token: Mapped[str]
    tries: Mapped[int] = mapped_column(INT)
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    not_before: Mapped[datetime | None]
