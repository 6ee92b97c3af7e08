"""The environment of the health sensor: the test's database, mail, PostHog and internal API, and on-call addresses."""

from functools import partial

import pytest

from seedtrust_ops.monitoring import alert_channels
from seedtrust_ops.orchestration import dagster_resources
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import (
    InternalApiServer,
    PostHogServer,
)
from seedtrust_ops_tests.support.environment import SetVariables

GENEROUS_SECONDS = 60.0
ON_CALL = ("oncall@seedtrust.example", "lead@seedtrust.example")


@pytest.fixture
def posthog(posthog_server: PostHogServer) -> PostHogServer:
    """The session's PostHog server, cleared and healthy."""
    posthog_server.clear()
    return posthog_server


@pytest.fixture
def internal_api(internal_api_server: InternalApiServer) -> InternalApiServer:
    """The session's internal API server, cleared and healthy."""
    internal_api_server.clear()
    return internal_api_server


@pytest.fixture
def health_environment(
    monkeypatch: pytest.MonkeyPatch,
    set_variables: SetVariables,
    bank_environment: dict[str, str],
    mail_environment: dict[str, str],
    posthog: PostHogServer,
    internal_api: InternalApiServer,
) -> None:
    """Configure every alert channel, and resolve alerts as soon as their findings are gone.

    Timeouts are generous, so that a busy machine is not mistaken for a server that does not respond.
    """
    for name in ("RESPONSE_TIMEOUT_SECONDS", "MAX_EVENT_SECONDS", "MAX_EMAIL_SECONDS"):
        monkeypatch.setattr(alert_channels, name, GENEROUS_SECONDS)
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", GENEROUS_SECONDS)
    monkeypatch.setattr(dagster_resources, "PostHog", partial(PostHog, timeout_seconds=GENEROUS_SECONDS))
    variables = {
        **posthog.environment,
        **internal_api.environment,
        "ALERT_EMAILS": ", ".join(ON_CALL),
        "SEEDTRUST_HEALTH_QUIET_SECONDS": "0",
    }
    set_variables(**variables)
