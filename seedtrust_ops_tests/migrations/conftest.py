"""Databases without schema `ops`: an empty one, and one as the platform's applications create it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL

from seedtrust_ops_tests.support.databases import create_platform_schema, temporary_database


@pytest.fixture
def empty_database(postgres_server: URL) -> Iterator[Engine]:
    """An empty database."""
    with temporary_database(postgres_server) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def platform_database(empty_database: Engine) -> Engine:
    """A database with only the tables of platform_schema.sql."""
    create_platform_schema(empty_database.url)
    return empty_database
