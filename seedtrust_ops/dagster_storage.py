"""Dagster's PostgreSQL storage, told where it is by this project's own rules about database URLs.

`dagster.yaml` names this class. It takes bare `postgresql://` URLs and falls back to the embedded server,
neither of which dagster-postgres does; everything else is dagster-postgres.
"""

from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from seedtrust_ops.resources.database import dagster_url


class SeedTrustDagsterStorage(DagsterPostgresStorage):
    """Runs, events, schedules and ticks in the database of `DAGSTER_POSTGRES_URL`."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        return cls(postgres_url=dagster_url().render_as_string(hide_password=False), inst_data=inst_data)
