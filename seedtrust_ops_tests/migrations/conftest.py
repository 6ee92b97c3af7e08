"""A database as the platform's applications make it, before this project was ever there."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL

from seedtrust_ops_tests.support.databases import create_platform, own_database


@pytest.fixture
def empty_database(postgres_server: URL) -> Iterator[Engine]:
    """A database with nothing in it."""
    with own_database(postgres_server) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def platform_database(empty_database: Engine) -> Engine:
    """A database made from platform_schema.sql alone."""
    create_platform(empty_database.url)
    return empty_database
