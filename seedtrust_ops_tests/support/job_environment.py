"""The outside world of the jobs as this session's servers, variables that a test changes, and a case to report on."""

import socket
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import URL

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.domain import component_checks
from seedtrust_ops.resources import http1_connection, huntington_client
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld, start_outside_world
from seedtrust_ops.tables import DisbursementRequest, LedgerEntry, User
from seedtrust_ops_tests.support.databases import plain
from seedtrust_ops_tests.support.factories import BuiltCase, Company

Change = Callable[..., None]
EVIL = '=HYPERLINK("https://evil.example","pay")'


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
    """The environment of a production process: the test's database and these servers.

    No answer counts as slow only because the machine was busy.
    """
    monkeypatch.setattr(component_checks, "SLOW_MS", 60_000)
    variables = {"SEEDTRUST_DATABASE_URL": plain(database_url), **outside.environment}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    application_engine.cache_clear()
    yield variables
    application_engine().dispose()
    get_settings.cache_clear()
    application_engine.cache_clear()


@pytest.fixture
def whole_environment(jobs_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with these servers and the session's mail server."""
    get_settings.cache_clear()


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch, bank_environment: dict[str, str]) -> Iterator[Change]:
    """Changes variables (None unsets one), as if the process had been started with them."""

    def forget() -> None:
        get_settings.cache_clear()
        application_engine.cache_clear()

    def change_variables(**variables: str | None) -> None:
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        forget()

    yield change_variables
    for name, value in bank_environment.items():
        monkeypatch.setenv(name, value)
    forget()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their wait, and one try at a connection or a question where there would be three."""
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)
    monkeypatch.setattr(huntington_client, "QUESTION_TRIES", 1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens for as long as the test lasts."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        yield silent.getsockname()[1]


@pytest.fixture
def case(company: Company) -> BuiltCase:
    """A case with 1,000.00, a fee of 12.50 and one request whose texts are formulas."""
    built = company.case(balance_cents=100_000)
    request_id = company.request(built, 4_321)
    with company.sessions.begin() as session:
        session.add(LedgerEntry(account_id=built.account_id, amount_cents=-1_250, kind="fee", memo=EVIL))
        session.execute(text(f"update accounts set balance_cents = 98750 where id = {built.account_id}"))
        session.execute(
            update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(description=EVIL)
        )
        session.execute(update(User).where(User.id == built.payee_id).values(full_name="Łucja José-Ñandú 李"))
    return built
