"""The outside world of the jobs: S3, CloudFront and the internal API as servers of this test session's own."""

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.config import environment
from seedtrust_ops.resources.database import application_engine
from seedtrust_ops.sandbox.outside.world import OutsideWorld, start_outside_world
from seedtrust_ops_tests.databases import plain


@pytest.fixture(scope="session")
def outside_servers() -> Iterator[OutsideWorld]:
    with start_outside_world(internal_api_key="internal-key-1") as world:
        yield world


@pytest.fixture
def outside(outside_servers: OutsideWorld) -> OutsideWorld:
    """The servers, answering well, with nothing kept and an empty bucket."""
    for server in (outside_servers.cloudfront, outside_servers.internal_api, outside_servers.posthog):
        server.clear()
    storage = outside_servers.storage
    for key in storage.keys():  # noqa: SIM118  it is no dict
        storage.client().delete_object(Bucket=storage.bucket, Key=key)
    return outside_servers


@pytest.fixture
def jobs_environment(
    monkeypatch: pytest.MonkeyPatch, database_url: URL, outside: OutsideWorld
) -> Iterator[dict[str, str]]:
    """The environment of a production process: the test's database and these servers."""
    variables = {"SEEDTRUST_DATABASE_URL": plain(database_url), **outside.environment}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment.cache_clear()
    application_engine.cache_clear()
    yield variables
    application_engine().dispose()
    environment.cache_clear()
    application_engine.cache_clear()
