"""What `dagster.yaml` names: where Dagster keeps its runs and its local files, by this project's own rules.

Everything here is Dagster's own class told where to go: bare `postgresql://` URLs are taken, the embedded
server serves where none is configured, and relative folders lie under DAGSTER_HOME whatever folder the
process was started in.
"""

from pathlib import Path
from typing import Any, Self

from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from seedtrust_ops.config import environment
from seedtrust_ops.resources.database import dagster_url


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules and ticks, in the database of `DAGSTER_POSTGRES_URL`."""

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        return cls(postgres_url=dagster_url().render_as_string(hide_password=False), inst_data=inst_data)


class LocalFiles(LocalArtifactStorage):
    """Files that Dagster keeps on this machine, in a folder under DAGSTER_HOME."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "LocalFiles":
        return cls(base_dir=_under_dagster_home(config_value["base_dir"]), inst_data=inst_data)


class LocalRunOutput(LocalComputeLogManager):
    """What runs print, in a folder under DAGSTER_HOME."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "LocalRunOutput":
        return cls(base_dir=_under_dagster_home(config_value["base_dir"]), inst_data=inst_data)


def _under_dagster_home(folder: str) -> str:
    return str((environment().location.dagster_home or Path.cwd()).expanduser().resolve() / folder)
