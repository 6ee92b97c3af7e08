"""Dagster instances as in production: the project's own dagster.yaml, with storage in PostgreSQL.

Each has its own folder and database, so that no test sees another test's runs.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.storage.runs.schema import RunsTable
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import create_engine, update
from sqlalchemy.engine import URL

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.support.databases import plain_url, temporary_database
from seedtrust_ops_tests.support.environment import process_environment

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"


@dataclass(frozen=True)
class DagsterHome:
    """A DAGSTER_HOME and the database of its storage."""

    folder: Path
    storage_url: URL

    @property
    def variables(self) -> dict[str, str]:
        return {"DAGSTER_HOME": str(self.folder), "DAGSTER_POSTGRES_URL": plain_url(self.storage_url)}

    def backdate_run(self, run_id: str, seconds: float) -> None:
        """Make a run look as if it had been created so many seconds ago."""
        created = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
        engine = create_engine(self.storage_url)
        with engine.begin() as connection:
            connection.execute(update(RunsTable).where(RunsTable.c.run_id == run_id).values(create_timestamp=created))
        engine.dispose()


def use_default_launcher() -> None:
    """Make every DAGSTER_HOME of the tests use Dagster's default run launcher, by leaving it out of dagster.yaml."""
    global DAGSTER_YAML
    settings = yaml.safe_load(DAGSTER_YAML.read_text())
    del settings["run_launcher"]
    folder = Path(tempfile.mkdtemp(prefix="default-launcher-"))
    DAGSTER_YAML = folder / "dagster.yaml"
    DAGSTER_YAML.write_text(yaml.safe_dump(settings))
    # The sandbox copies dagster.yaml from here.
    os.environ["DAGSTER_HOME"] = str(folder)


@contextmanager
def temporary_dagster_home(server: URL, folder: Path) -> Iterator[DagsterHome]:
    """Yield a DAGSTER_HOME with the project's dagster.yaml and an empty storage database."""
    folder.mkdir()
    shutil.copy(DAGSTER_YAML, folder)
    with temporary_database(server, template=_storage_template(server)) as storage_url:
        yield DagsterHome(folder, storage_url)


@cache
def _storage_template(server: URL) -> str:
    """Return the name of a database with Dagster's tables; copying it is faster than creating them each time."""
    template = embedded_postgres.ensure_database(server, "dagster_template")
    DagsterPostgresStorage(template.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False))
    return "dagster_template"


@contextmanager
def open_instance(home: DagsterHome) -> Iterator[dg.DagsterInstance]:
    """Yield the instance at `home`, opened in the test's process."""
    with process_environment(**home.variables), dg.DagsterInstance.get() as instance:
        yield instance
