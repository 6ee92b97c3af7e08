"""The application's database as a resource of Dagster's; beside it stands what is Dagster-free of it, for the jobs.

Where the databases are and how their troubles read is `postgres`'s.
"""

import dagster as dg
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.resources.postgres import (
    application_engine,
    application_sessions,
    application_url,
    create_application_engine,
    dagster_url,
    plain_database_errors,
    unreachable,
)

__all__ = [
    "DatabaseResource",
    "application_engine",
    "application_sessions",
    "application_url",
    "create_application_engine",
    "dagster_url",
    "plain_database_errors",
    "unreachable",
]


class DatabaseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The database of SeedTrust's applications, from SEEDTRUST_DATABASE_URL."""

    def sessions(self) -> sessionmaker[Session]:
        """Return the maker of sessions; see `application_engine` for what it raises."""
        return application_sessions()

    def engine(self) -> Engine:
        """Return this process's engine, for what needs a connection of its own."""
        return application_engine()
