"""A watchdog with its notification channels: a mailbox, PostHog and the internal API of this test session."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from seedtrust_ops.config.alert_thresholds import WatchdogSettings
from seedtrust_ops.sandbox.external_services.control_client import (
    InternalApiServer,
    PostHogServer,
)
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.watchdog.watchdog_loop import Watchdog
from seedtrust_ops_tests.support.environment import SetVariables

ON_CALL = "on-call@seedtrust.example"


@dataclass
class WatchdogSetup:
    """Creates watchdogs on one folder, as if each were a process, and collects their log lines and notifications."""

    folder: Path
    mailbox: MailboxProcess
    internal_api: InternalApiServer
    posthog: PostHogServer
    log_lines: list[str] = field(default_factory=list)

    def create(self, **thresholds: Any) -> Watchdog:
        """Create a watchdog; thresholds may be below the configurable minimum, because the test daemon is faster."""
        return Watchdog(self.folder, WatchdogSettings.model_construct(**thresholds), self.log_lines.append)

    @property
    def subjects(self) -> list[str]:
        """The subjects of the sent emails, oldest first."""
        return [email.subject for email in self.mailbox.control.emails(ON_CALL)]


@pytest.fixture
def watchdog_setup(
    tmp_path: Path,
    set_variables: SetVariables,
    mailbox: MailboxProcess,
    internal_api_server: InternalApiServer,
    posthog_server: PostHogServer,
) -> WatchdogSetup:
    servers = (internal_api_server, posthog_server)
    for server in servers:
        server.clear()
    variables = {"ALERT_EMAILS": ON_CALL, **mailbox.environment}
    set_variables(**variables, **internal_api_server.environment, **posthog_server.environment)
    return WatchdogSetup(tmp_path / "watchdog", mailbox, internal_api_server, posthog_server)
