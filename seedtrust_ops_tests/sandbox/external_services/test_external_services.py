"""The servers that stand in for S3, CloudFront, the internal API and PostHog keep what they get and do as told."""

from collections.abc import Iterator

import httpx
import psutil
import pytest
from posthog import Posthog

from seedtrust_ops.sandbox.external_services.control_client import start_cloudfront
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld, start_outside_world
from seedtrust_ops_tests.support.waiters import wait_until

KEY = "a-key"
GOOD = {"component": "s3", "status": "up", "latency_ms": 3, "checked_at": "2026-03-01T10:00:00+00:00", "detail": "ok"}


@pytest.fixture(scope="module")
def world() -> Iterator[OutsideWorld]:
    with start_outside_world(internal_api_key=KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def clear(world: OutsideWorld) -> None:
    for server in (world.cloudfront, world.internal_api, world.posthog):
        server.clear()


def post(world: OutsideWorld, body: object, key: str = KEY) -> int:
    headers = {"X-Internal-Api-Key": key}
    return httpx.post(f"{world.internal_api.url}/status", json=body, headers=headers).status_code


def test_the_internal_api_takes_what_the_contract_says_and_keeps_it(world: OutsideWorld) -> None:
    assert post(world, GOOD) == 201
    assert post(world, GOOD | {"latency_ms": None}) == 201
    assert [one["latency_ms"] for one in world.internal_api.posts()] == [3, None]


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
def test_the_internal_api_refuses_what_the_contract_does_not_say(
    world: OutsideWorld, change: dict[str, object]
) -> None:
    assert post(world, GOOD | change) == 422
    assert world.internal_api.posts() == []
    assert len(world.internal_api.kept()) == 1


def test_the_internal_api_knows_its_key(world: OutsideWorld) -> None:
    assert post(world, GOOD, "another") == 401


def test_posthog_s_own_client_is_understood(world: OutsideWorld) -> None:
    client = Posthog("phc_sandbox", host=world.posthog.url, sync_mode=True)
    client.capture("job_run_error", distinct_id="seedtrust-ops", properties={"task_name": "example"})
    try:
        raise ValueError("broken")
    except ValueError as error:
        client.capture_exception(error)
    assert [one["event"] for one in world.posthog.events()] == ["job_run_error", "$exception"]
    (event,) = world.posthog.events("job_run_error")
    assert event["properties"]["task_name"] == "example"


def test_a_server_answers_as_it_was_told_until_it_is_cleared(world: OutsideWorld) -> None:
    world.cloudfront.answer_with(503)
    assert httpx.get(world.cloudfront.environment["CLOUDFRONT_URL"]).status_code == 503
    world.cloudfront.clear()
    assert httpx.get(world.cloudfront.environment["CLOUDFRONT_URL"]).status_code == 200


def test_a_killed_server_comes_back_at_its_old_address() -> None:
    first = start_cloudfront()
    first.server.kill()
    with start_cloudfront(int(first.url.rsplit(":", 1)[1])) as second:
        assert second.url == first.url


def test_all_servers_end_with_the_block() -> None:
    with start_outside_world(internal_api_key=KEY) as running:
        servers = (running.storage, running.cloudfront, running.internal_api, running.posthog)
        pids = [one.server.pid for one in servers]
        assert all(psutil.pid_exists(pid) for pid in pids)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), what="the servers to end")
