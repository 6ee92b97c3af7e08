"""Collects the status from both databases, each with a deadline; an unavailable database becomes an error message."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.migrations.migrator import HEAD_REVISION, current_revision
from seedtrust_ops.status.models import StatusReport, Workload
from seedtrust_ops.status.runs import read_dagster_status
from seedtrust_ops.status.workload import read_workload
from seedtrust_ops.watchdog.probes import QueryFailed, TimedQuery, application_database_url, dagster_database_url

DEADLINE_SECONDS = 15.0

Result = TypeVar("Result")


class _NotMigrated(QueryFailed):
    """Schema ops is not at the revision that this code needs."""


def collect_status() -> StatusReport:
    """Return the current status.

    Raises:
        ConfigurationError: if an environment variable is invalid.
    """
    location = get_settings().location
    halted = get_settings().transfers.halted
    shadow = get_settings().shadow
    now = datetime.now(UTC)
    application = TimedQuery("SEEDTRUST_DATABASE_URL", application_database_url, DEADLINE_SECONDS)
    dagster = TimedQuery("DAGSTER_POSTGRES_URL", dagster_database_url, DEADLINE_SECONDS)
    workload, application_error = _query(application, lambda connection: _read_workload(connection, halted))
    dagster_status, dagster_error = _query(
        dagster,
        lambda connection: read_dagster_status(
            connection,
            zone=ZoneInfo(location.timezone),
            dev_env=location.dev_env,
            now=now,
            is_in_shadow_mode=shadow.covers,
        ),
    )
    return StatusReport(now, dagster_error, application_error, dagster_status, workload)


def _query(database: TimedQuery, query: Callable[[Connection], Result]) -> tuple[Result | None, str | None]:
    try:
        return database.run(query), None
    except QueryFailed as error:
        return None, str(error)


def _read_workload(connection: Connection, halted_by_environment: bool) -> Workload:
    revision = current_revision(connection)
    if revision != HEAD_REVISION:
        raise _NotMigrated(
            f"Schema ops is at revision {revision or 'none'}, but this code needs {HEAD_REVISION}. Run "
            "`seedtrust-ops migrate`."
        )
    return read_workload(Session(connection), halted_by_environment=halted_by_environment)
