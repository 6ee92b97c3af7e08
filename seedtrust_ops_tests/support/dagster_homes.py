"""A Dagster instance as production has it: the project's own dagster.yaml, its storage in PostgreSQL.

Each is in a folder and a database of its own, so that no test sees another's runs.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy.engine import URL

from seedtrust_ops.config import get_settings
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops_tests.support.databases import own_database, plain

DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"


@dataclass(frozen=True)
class DagsterHome:
    """A DAGSTER_HOME and the database of its storage."""

    folder: Path
    storage_url: URL

    @property
    def variables(self) -> dict[str, str]:
        return {"DAGSTER_HOME": str(self.folder), "DAGSTER_POSTGRES_URL": plain(self.storage_url)}


def use_default_launcher() -> None:
    """Have every DAGSTER_HOME of the tests start its runs with Dagster's own launcher, as it does without a word."""
    global DAGSTER_YAML
    settings = yaml.safe_load(DAGSTER_YAML.read_text())
    del settings["run_launcher"]
    folder = Path(tempfile.mkdtemp(prefix="default-launcher-"))
    DAGSTER_YAML = folder / "dagster.yaml"
    DAGSTER_YAML.write_text(yaml.safe_dump(settings))
    # Where the sandbox looks for the settings that it copies.
    os.environ["DAGSTER_HOME"] = str(folder)


@contextmanager
def dagster_home_of_its_own(server: URL, folder: Path) -> Iterator[DagsterHome]:
    """A DAGSTER_HOME with the project's dagster.yaml and an empty storage; processes are given its variables."""
    folder.mkdir()
    shutil.copy(DAGSTER_YAML, folder)
    with own_database(server, template=_storage_template(server)) as storage_url:
        yield DagsterHome(folder, storage_url)


@cache
def _storage_template(server: URL) -> str:
    """The name of a database in which Dagster has made its tables: copying it is quicker than making them."""
    template = embedded_postgres.ensure_database(server, "dagster_template")
    DagsterPostgresStorage(template.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False))
    return "dagster_template"


@contextmanager
def instance_of(home: DagsterHome) -> Iterator[dg.DagsterInstance]:
    """The instance at `home`, in the test's own process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.variables.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        try:
            with dg.DagsterInstance.get() as instance:
                yield instance
        finally:
            get_settings.cache_clear()
