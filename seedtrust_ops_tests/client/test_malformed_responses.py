"""The client with servers that misbehave: it explains the error, and retries only if that is safe."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from seedtrust_ops.client import (
    AsyncOpsClient,
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    OpsClient,
    SeedTrustError,
    transport,
)
from seedtrust_ops.client.runs import RunStatus, build_run_state
from seedtrust_ops.client.transport import MAX_ATTEMPTS
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.supervisor.worker_stack import find_free_port
from seedtrust_ops_tests.support.http_stubs import StubResponse, stub_server

RUN_ID = str(uuid.uuid4())
LOGIN = StubResponse(status=302, location="/oauth2/sign_in")
SCHEMA_ERROR = {"errors": [{"message": "Cannot query field 'runOrError' on type 'Query'."}]}

FOREIGN_PAGE = {"errors": [{"message": "Pages of 'null' may not send requests."}]}


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "INITIAL_BACKOFF_SECONDS", 0)


def errors_of(url: str, read_timeout: float = 60) -> list[SeedTrustError]:
    """The errors of `job_run`, `revoke` and `launch`, which must be the same for both clients."""
    errors: list[SeedTrustError] = []
    timeout = httpx.Timeout(60, read=read_timeout)
    with (
        httpx.Client(timeout=timeout, trust_env=False) as http,
        OpsClient(url, application="a-test", http=http) as operations,
    ):
        for call in (operations.job_run, operations.revoke, operations.launch):
            with pytest.raises(SeedTrustError) as raised:
                call(RUN_ID)
            errors.append(raised.value)
    assert [(type(error), _normalize(error)) for error in asyncio.run(_async_errors(url, timeout))] == [
        (type(error), _normalize(error)) for error in errors
    ]
    return errors


async def _async_errors(url: str, timeout: httpx.Timeout) -> list[SeedTrustError]:
    errors: list[SeedTrustError] = []
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=False) as http,
        AsyncOpsClient(url, application="a-test", http=http) as operations,
    ):
        for call in (operations.job_run, operations.revoke, operations.launch):
            with pytest.raises(SeedTrustError) as raised:
                await call(RUN_ID)
            errors.append(raised.value)
    return errors


def _normalize(error: SeedTrustError) -> str:
    """The message without the launch's request ID and without the socket's own text for a refused connection."""
    return str(error).replace(getattr(error, "request_id", "-"), "").partition(" did not respond")[0]


@pytest.mark.parametrize(
    ("stub", "launch_error", "message"),
    [
        (StubResponse(status=500, body="Internal Server Error"), LaunchUncertain, "500"),
        (StubResponse(status=502, body="<html>"), LaunchUncertain, "502"),
        (StubResponse(status=429), LaunchUncertain, "429"),
        (StubResponse(body="<html>Please sign in</html>"), LaunchUncertain, "did not respond with GraphQL"),
        (StubResponse(body=[1, 2]), LaunchUncertain, "did not respond with GraphQL"),
        (StubResponse(hangs=True), LaunchUncertain, "did not respond"),
        (LOGIN, OperationsRefused, "login"),
        (StubResponse(status=401), OperationsRefused, "login"),
        (StubResponse(status=403, body={"message": "no"}), OperationsRefused, "login"),
        (StubResponse(status=403, body=FOREIGN_PAGE), OperationsRefused, "Pages of 'null' may not send requests."),
        (StubResponse(status=404, body="Not Found"), OperationsRefused, "not a Dagster web server"),
        (StubResponse(status=400, body=SCHEMA_ERROR), OperationsRefused, "Cannot query field"),
        (StubResponse(body=SCHEMA_ERROR), OperationsRefused, "Cannot query field"),
    ],
    ids=lambda value: (
        f"{value.status} {value.body or value.location or value.hangs}" if isinstance(value, StubResponse) else ""
    ),
)
def test_malformed_responses_have_clear_errors(
    stub: StubResponse, launch_error: type[SeedTrustError], message: str
) -> None:
    with stub_server(stub) as url:
        read, revoked, launched = errors_of(url, read_timeout=0.5 if stub.hangs else 60)
    assert message in str(read)
    assert message in str(revoked)
    assert type(launched) is launch_error
    assert "request_id" in str(launched) if launch_error is LaunchUncertain else message in str(launched)


def test_queries_are_retried_but_mutations_are_not() -> None:
    stub = StubResponse(status=500)
    with stub_server(stub) as url, OpsClient(url, application="a-test", timeout_seconds=60) as operations:
        with pytest.raises(OperationsUnreachable):
            operations.job_run(RUN_ID)
        assert len(stub.requests) == MAX_ATTEMPTS
        stub.requests.clear()
        with pytest.raises(OperationsUnreachable):
            operations.revoke(RUN_ID)
        assert [_operation_type(request) for request in stub.requests] == ["mutation"]
        stub.requests.clear()
        with pytest.raises(LaunchUncertain):
            operations.launch("example")
        assert [_operation_type(request) for request in stub.requests] == ["mutation", *["query"] * MAX_ATTEMPTS]


def test_refused_connection_launches_nothing() -> None:
    read, revoked, launched = errors_of(f"http://127.0.0.1:{find_free_port()}")
    for error in (read, revoked, launched):
        assert isinstance(error, OperationsUnreachable)
        assert error.not_sent
        assert "The request was not sent" in str(error)


@pytest.mark.parametrize("url", ["", "127.0.0.1:3000", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_invalid_url_is_rejected_by_the_constructor(url: str) -> None:
    for client in (OpsClient, AsyncOpsClient):
        with pytest.raises(ConfigurationError, match="is not the URL"):
            client(url, application="a-test")


def _operation_type(request: dict[str, Any]) -> str:
    return str(request["query"]).split()[0]


def test_run_status_of_a_newer_dagster_is_pending() -> None:
    times = {"creationTime": 1_796_000_000, "startTime": None, "endTime": None}
    state = build_run_state({"runId": RUN_ID, "jobName": "retention", "status": "HIBERNATING", "tags": [], **times})
    assert (state.status, state.error) == (RunStatus.PENDING, None)
