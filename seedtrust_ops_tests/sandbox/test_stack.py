"""The outside world: a server that died comes back at its old address, and what was good of it still is."""

from pathlib import Path

import httpx
import pytest

from seedtrust_ops.sandbox.stack import start_world


@pytest.mark.timeout(600)
def test_every_server_that_is_killed_comes_back_at_its_old_address(tmp_path: Path) -> None:
    with start_world(tmp_path / "world") as world:
        outside = world.outside
        servers = [
            *(world.bank.server, world.mailbox.server, outside.storage.server),
            *(outside.cloudfront.server, outside.internal_api.server, outside.posthog.server),
        ]
        before = world.environment
        assert world.revive() == []
        for server in servers:
            server.process.kill()
            server.process.wait()

        assert len(world.revive()) == len(servers)

        assert world.environment == before
        assert httpx.get(before["CLOUDFRONT_URL"], trust_env=False, timeout=60).status_code == 200
        assert world.bank.control.ledger()["movements"] == []
        assert world.mailbox.control.message_ids() == []
        assert world.mailbox.control.smtp_port() == world.mailbox.smtp_port
        assert outside.storage.keys() == []
        assert outside.internal_api.posts() == []
        assert outside.posthog.events() == []
