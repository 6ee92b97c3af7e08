"""Fixtures for job tests: the external services, environment variables that a test can set, and a case for reports."""

import socket
from collections.abc import Iterator

import dagster as dg
import pytest
from sqlalchemy import text, update
from sqlalchemy.engine import URL

from seedtrust_ops.domain import component_checks
from seedtrust_ops.resources import http1_connection, huntington_client
from seedtrust_ops.sandbox.external_services.control_client import (
    InternalApiServer,
    PostHogServer,
    start_cloudfront,
    start_storage,
)
from seedtrust_ops.sandbox.stack import BUCKET, ExternalServices
from seedtrust_ops.tables import DisbursementRequest, LedgerEntry, User
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.environment import SetVariables, variable_setter
from seedtrust_ops_tests.support.factories import BuiltCase, Company
from seedtrust_ops_tests.support.tiers import Resource, provides

FORMULA_TEXT = '=HYPERLINK("https://evil.example","pay")'


@pytest.fixture(scope="session")
@provides(Resource.PROCESS)
def shared_external_services(
    internal_api_server: InternalApiServer, posthog_server: PostHogServer
) -> Iterator[ExternalServices]:
    with start_storage(BUCKET) as storage, start_cloudfront() as cloudfront:
        yield ExternalServices(storage, cloudfront, internal_api_server, posthog_server)


@pytest.fixture
def external_services(shared_external_services: ExternalServices) -> ExternalServices:
    """The session's servers, responding normally, with no recorded requests and an empty bucket."""
    for server in (
        shared_external_services.cloudfront,
        shared_external_services.internal_api,
        shared_external_services.posthog,
    ):
        server.clear()
    storage = shared_external_services.storage
    for key in storage.keys():  # noqa: SIM118 - not a dict
        storage.client().delete_object(Bucket=storage.bucket, Key=key)
    return shared_external_services


@pytest.fixture
def set_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetVariables]:
    """A function that sets environment variables (None unsets one), as if the process had been started with them."""
    with variable_setter(monkeypatch) as set_variables:
        yield set_variables


@pytest.fixture
def jobs_environment(
    monkeypatch: pytest.MonkeyPatch,
    set_variables: SetVariables,
    database_url: URL,
    external_services: ExternalServices,
) -> dict[str, str]:
    """The environment of a production process: the test's database and these servers.

    The limit for slow responses is raised, so that a busy machine does not count as a slow service.
    """
    monkeypatch.setattr(component_checks, "SLOW_MS", 60_000)
    variables = {"SEEDTRUST_DATABASE_URL": plain_url(database_url), **external_services.environment}
    set_variables(**variables)
    return variables


@pytest.fixture
def full_environment(jobs_environment: dict[str, str], mail_environment: dict[str, str]) -> None:
    """The environment of a production process, with these servers and the session's mail server."""


@pytest.fixture
def no_retry_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the delays of retries, and makes one attempt instead of three to connect or to look a transfer up."""
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda _policy, _attempt: 0)
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)
    monkeypatch.setattr(huntington_client, "LOOKUP_ATTEMPTS", 1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens during the test."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def case(company: Company) -> BuiltCase:
    """A case with $1,000.00, a fee of $12.50 and one request, with spreadsheet formulas as texts."""
    built = company.case(balance_cents=100_000)
    request_id = company.request(built, 4_321)
    with company.sessions.begin() as session:
        session.add(LedgerEntry(account_id=built.account_id, amount_cents=-1_250, kind="fee", memo=FORMULA_TEXT))
        session.execute(text(f"update accounts set balance_cents = 98750 where id = {built.account_id}"))
        session.execute(
            update(DisbursementRequest).where(DisbursementRequest.id == request_id).values(description=FORMULA_TEXT)
        )
        session.execute(update(User).where(User.id == built.payee_id).values(full_name="Łucja José-Ñandú 李"))
    return built
