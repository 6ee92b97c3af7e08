"""A sandbox server that was killed is restarted at its old address; the bank and the mail server keep their data."""

from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.stack import start_sandbox


@pytest.mark.usefixtures("child_processes")
@pytest.mark.timeout(600)
def test_killed_servers_are_restarted_at_their_old_address(tmp_path: Path) -> None:
    with start_sandbox(tmp_path / "sandbox") as stack:
        services = stack.services
        servers = [
            *(stack.bank.server, stack.mailbox.server, services.storage.server),
            *(services.cloudfront.server, services.internal_api.server, services.posthog.server),
        ]
        before = stack.environment
        assert stack.restart_stopped() == []
        for server in servers:
            server.process.kill()
            server.process.wait()

        assert len(stack.restart_stopped()) == len(servers)

        assert stack.environment == before
        assert httpx.get(before["CLOUDFRONT_URL"], trust_env=False, timeout=60).status_code == 200
        assert stack.bank.control.ledger()["movements"] == []
        assert stack.mailbox.control.message_ids() == []
        assert stack.mailbox.control.smtp_port() == stack.mailbox.smtp_port
        assert services.storage.keys() == []
        assert services.internal_api.posted_statuses() == []
        assert services.posthog.events() == []
