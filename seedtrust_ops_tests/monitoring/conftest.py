"""A Dagster instance on PostgreSQL beside the application's database."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.engine import URL

from seedtrust_ops_tests.dagster_homes import DagsterHome, dagster_home_of_its_own, instance_of


@pytest.fixture
def dagster_home(postgres_server: URL, tmp_path: Path) -> Iterator[DagsterHome]:
    with dagster_home_of_its_own(postgres_server, tmp_path / "home") as home:
        yield home


@pytest.fixture
def instance(dagster_home: DagsterHome, bank_environment: dict[str, str]) -> Iterator[dg.DagsterInstance]:
    with instance_of(dagster_home) as instance:
        yield instance
