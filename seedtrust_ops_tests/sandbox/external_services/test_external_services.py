"""The stand-ins for S3, CloudFront, the internal API and PostHog record requests and respond as configured."""

from collections.abc import Iterator

import httpx
import psutil
import pytest
from posthog import Posthog

from seedtrust_ops.sandbox.external_services.control_client import start_cloudfront
from seedtrust_ops.sandbox.stack import ExternalServices, start_external_services
from seedtrust_ops_tests.support.tiers import Resource, provides
from seedtrust_ops_tests.support.waiters import wait_until

KEY = "a-key"
VALID = {"component": "s3", "status": "up", "latency_ms": 3, "checked_at": "2026-03-01T10:00:00+00:00", "detail": "ok"}


@pytest.fixture(scope="module")
@provides(Resource.PROCESS)
def services() -> Iterator[ExternalServices]:
    with start_external_services(internal_api_key=KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def empty_servers(services: ExternalServices) -> None:
    for server in (services.cloudfront, services.internal_api, services.posthog):
        server.clear()


def post(services: ExternalServices, body: object, key: str = KEY) -> int:
    headers = {"X-Internal-Api-Key": key}
    return httpx.post(f"{services.internal_api.url}/status", json=body, headers=headers).status_code


def test_internal_api_accepts_and_records_valid_statuses(services: ExternalServices) -> None:
    assert post(services, VALID) == 201
    assert post(services, VALID | {"latency_ms": None}) == 201
    assert [status["latency_ms"] for status in services.internal_api.posted_statuses()] == [3, None]


@pytest.mark.parametrize(
    "change",
    [
        {"component": "ec2"},
        {"status": "fine"},
        {"latency_ms": "3"},
        {"latency_ms": -1},
        {"checked_at": "now"},
        {"x": 1},
    ],
)
def test_internal_api_refuses_invalid_statuses(services: ExternalServices, change: dict[str, object]) -> None:
    assert post(services, VALID | change) == 422
    assert services.internal_api.posted_statuses() == []
    assert len(services.internal_api.requests()) == 1


def test_internal_api_requires_its_key(services: ExternalServices) -> None:
    assert post(services, VALID, "another") == 401


def test_posthog_server_understands_the_real_client(services: ExternalServices) -> None:
    client = Posthog("phc_sandbox", host=services.posthog.url, sync_mode=True)
    client.capture("job_run_error", distinct_id="seedtrust-ops", properties={"task_name": "example"})
    try:
        raise ValueError("broken")
    except ValueError as error:
        client.capture_exception(error)
    assert [event["event"] for event in services.posthog.events()] == ["job_run_error", "$exception"]
    (event,) = services.posthog.events("job_run_error")
    assert event["properties"]["task_name"] == "example"


def test_response_override_lasts_until_cleared(services: ExternalServices) -> None:
    services.cloudfront.respond_with(503)
    assert httpx.get(services.cloudfront.environment["CLOUDFRONT_URL"]).status_code == 503
    services.cloudfront.clear()
    assert httpx.get(services.cloudfront.environment["CLOUDFRONT_URL"]).status_code == 200


def test_killed_server_can_be_restarted_at_the_same_address() -> None:
    first = start_cloudfront()
    first.server.kill()
    with start_cloudfront(int(first.url.rsplit(":", 1)[1])) as second:
        assert second.url == first.url


def test_servers_stop_at_the_end_of_the_block() -> None:
    with start_external_services(internal_api_key=KEY) as running:
        servers = (running.storage, running.cloudfront, running.internal_api, running.posthog)
        pids = [server.server.pid for server in servers]
        assert all(psutil.pid_exists(pid) for pid in pids)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="the servers to end")
