"""Asks both databases how things stand, each with a deadline; one that is away is a sentence, not an error."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from seedtrust_ops.config import get_settings
from seedtrust_ops.migrations.migrator import HEAD_REVISION, current_revision
from seedtrust_ops.status.models import StatusReport, WorkStanding
from seedtrust_ops.status.runs import read_runs
from seedtrust_ops.status.workload import read_work
from seedtrust_ops.watchdog.probes import NoResponse, TimedQuery, application_database, dagster_database

DEADLINE_SECONDS = 15.0

Found = TypeVar("Found")


class _NotMigrated(NoResponse):
    """Schema ops is not at the revision of this code."""


def collect_status() -> StatusReport:
    """Return how things stand now.

    Raises:
        ConfigurationError: where a variable can't be used.
    """
    location = get_settings().location
    halted = get_settings().transfers.halted
    shadow = get_settings().shadow
    now = datetime.now(UTC)
    application = TimedQuery("SEEDTRUST_DATABASE_URL", application_database, DEADLINE_SECONDS)
    dagster = TimedQuery("DAGSTER_POSTGRES_URL", dagster_database, DEADLINE_SECONDS)
    work, application_trouble = _asked(application, lambda connection: _read_work(connection, halted))
    runs, dagster_trouble = _asked(
        dagster,
        lambda connection: read_runs(
            connection,
            zone=ZoneInfo(location.timezone),
            dev_env=location.dev_env,
            now=now,
            in_shadow=shadow.covers,
        ),
    )
    return StatusReport(now, dagster_trouble, application_trouble, runs, work)


def _asked(inquirer: TimedQuery, question: Callable[[Connection], Found]) -> tuple[Found | None, str | None]:
    try:
        return inquirer.ask(question), None
    except NoResponse as trouble:
        return None, str(trouble)


def _read_work(connection: Connection, halted_by_environment: bool) -> WorkStanding:
    revision = current_revision(connection)
    if revision != HEAD_REVISION:
        raise _NotMigrated(
            f"Schema ops is at revision {revision or 'nothing'} and this code wants {HEAD_REVISION}: run "
            "`seedtrust-ops migrate`."
        )
    return read_work(Session(connection), halted_by_environment=halted_by_environment)
