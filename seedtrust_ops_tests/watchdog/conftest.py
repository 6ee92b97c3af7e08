"""The watchdog with everybody whom it tells: a mailbox, PostHog and the internal API of this test session's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from seedtrust_ops.config import get_settings
from seedtrust_ops.config.watchdog import WatchdogSettings
from seedtrust_ops.sandbox.external_services.control_client import (
    InternalApiServer,
    PostHogServer,
    start_internal_api,
    start_posthog,
)
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.watchdog.watchdog_loop import Watchdog

ON_CALL = "on-call@seedtrust.example"


@pytest.fixture(scope="session")
def internal_api_server() -> Iterator[InternalApiServer]:
    with start_internal_api("internal-key-1") as server:
        yield server


@pytest.fixture(scope="session")
def posthog_server() -> Iterator[PostHogServer]:
    with start_posthog() as server:
        yield server


@dataclass
class Watch:
    """Starts watchdogs on one folder, as if each were a process of its own, and has what they said and told."""

    folder: Path
    mailbox: MailboxProcess
    internal_api: InternalApiServer
    posthog: PostHogServer
    said: list[str] = field(default_factory=list)

    def start(self, **patience: Any) -> Watchdog:
        """Patience may be shorter here than people may configure: the daemon of these tests beats faster."""
        return Watchdog(self.folder, WatchdogSettings.model_construct(**patience), self.said.append)

    @property
    def subjects(self) -> list[str]:
        """Those of the letters, oldest first."""
        return [letter.subject for letter in self.mailbox.control.letters(ON_CALL)]


@pytest.fixture
def watch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mailbox: MailboxProcess,
    internal_api_server: InternalApiServer,
    posthog_server: PostHogServer,
) -> Iterator[Watch]:
    servers = (internal_api_server, posthog_server)
    for server in servers:
        server.clear()
    variables = {"ALERT_EMAILS": ON_CALL, **mailbox.environment}
    for name, value in {**variables, **internal_api_server.environment, **posthog_server.environment}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield Watch(tmp_path / "watchdog", mailbox, internal_api_server, posthog_server)
    get_settings.cache_clear()


Change = Callable[..., None]


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Changes variables, as if the process had been started with them."""

    def change_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()

    return change_variables
