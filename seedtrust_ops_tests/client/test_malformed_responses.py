"""The client before servers that are none: it says what is wrong, and asks again only where that can do no harm."""

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
from seedtrust_ops.client.transport import TRIES
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.supervisor.worker_stack import free_port
from seedtrust_ops_tests.support.http_stubs import Says, server_that_says

RUN_ID = str(uuid.uuid4())
LOGIN = Says(status=302, location="/oauth2/sign_in")
SCHEMA_ERROR = {"errors": [{"message": "Cannot query field 'runOrError' on type 'Query'."}]}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE_SECONDS", 0)


def troubles(url: str, answer_seconds: float = 60) -> list[SeedTrustError]:
    """What each call of both clients raises: look, revoke, launch. All but the answer is waited for patiently."""
    found: list[SeedTrustError] = []
    timeout = httpx.Timeout(60, read=answer_seconds)
    with (
        httpx.Client(timeout=timeout, trust_env=False) as http,
        OpsClient(url, application="a-test", http=http) as operations,
    ):
        for call in (operations.job_run, operations.revoke, operations.launch):
            with pytest.raises(SeedTrustError) as raised:
                call(RUN_ID)
            found.append(raised.value)
    assert [(type(one), _worded(one)) for one in asyncio.run(_awaited(url, timeout))] == [
        (type(one), _worded(one)) for one in found
    ]
    return found


async def _awaited(url: str, timeout: httpx.Timeout) -> list[SeedTrustError]:
    found: list[SeedTrustError] = []
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=False) as http,
        AsyncOpsClient(url, application="a-test", http=http) as operations,
    ):
        for call in (operations.job_run, operations.revoke, operations.launch):
            with pytest.raises(SeedTrustError) as raised:
                await call(RUN_ID)
            found.append(raised.value)
    return found


def _worded(error: SeedTrustError) -> str:
    """The sentence without the one launch's id, and without what the two sorts of sockets call a refused connection."""
    return str(error).replace(getattr(error, "request_id", "-"), "").partition(" did not answer")[0]


@pytest.mark.parametrize(
    ("says", "launch_raises", "words"),
    [
        (Says(status=500, body="Internal Server Error"), LaunchUncertain, "500"),
        (Says(status=502, body="<html>"), LaunchUncertain, "502"),
        (Says(status=429), LaunchUncertain, "429"),
        (Says(body="<html>Please sign in</html>"), LaunchUncertain, "not GraphQL"),
        (Says(body=[1, 2]), LaunchUncertain, "not GraphQL"),
        (Says(silent=True), LaunchUncertain, "did not answer"),
        (LOGIN, OperationsRefused, "login"),
        (Says(status=401), OperationsRefused, "login"),
        (Says(status=403, body={"message": "no"}), OperationsRefused, "login"),
        (Says(status=404, body="Not Found"), OperationsRefused, "no Dagster web server"),
        (Says(status=400, body=SCHEMA_ERROR), OperationsRefused, "Cannot query field"),
        (Says(body=SCHEMA_ERROR), OperationsRefused, "Cannot query field"),
    ],
    ids=lambda value: (
        f"{value.status} {value.body or value.location or value.silent}" if isinstance(value, Says) else ""
    ),
)
def test_each_bad_answer_has_its_sentence(says: Says, launch_raises: type[SeedTrustError], words: str) -> None:
    with server_that_says(says) as url:
        looked, revoked, launched = troubles(url, answer_seconds=0.5 if says.silent else 60)
    assert words in str(looked)
    assert words in str(revoked)
    assert type(launched) is launch_raises
    assert "request_id" in str(launched) if launch_raises is LaunchUncertain else words in str(launched)


def test_only_questions_are_asked_again() -> None:
    says = Says(status=500)
    with server_that_says(says) as url, OpsClient(url, application="a-test", timeout_seconds=60) as operations:
        with pytest.raises(OperationsUnreachable):
            operations.job_run(RUN_ID)
        assert len(says.asked) == TRIES
        says.asked.clear()
        with pytest.raises(OperationsUnreachable):
            operations.revoke(RUN_ID)
        assert [_kind(asked) for asked in says.asked] == ["mutation"]
        says.asked.clear()
        with pytest.raises(LaunchUncertain):
            operations.launch("example")
        assert [_kind(asked) for asked in says.asked] == ["mutation", *["query"] * TRIES]


def test_where_nobody_listens_nothing_was_launched() -> None:
    looked, revoked, launched = troubles(f"http://127.0.0.1:{free_port()}")
    for trouble in (looked, revoked, launched):
        assert isinstance(trouble, OperationsUnreachable)
        assert trouble.nothing_left
        assert "Nothing was sent" in str(trouble)


@pytest.mark.parametrize("url", ["", "127.0.0.1:3000", "ftp://127.0.0.1", "http://", "http://[::1"])
def test_what_is_no_address_is_told_when_the_client_is_made(url: str) -> None:
    for client in (OpsClient, AsyncOpsClient):
        with pytest.raises(ConfigurationError, match="no address"):
            client(url, application="a-test")


def _kind(asked: dict[str, Any]) -> str:
    return str(asked["query"]).split()[0]
