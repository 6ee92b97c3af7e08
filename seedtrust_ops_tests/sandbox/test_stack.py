"""The sandbox's servers: killed ones are restarted at their old address, and its variables replace all real ones."""

from pathlib import Path

import httpx
import pytest

from seedtrust_ops.config.external_services import MailSettings
from seedtrust_ops.resources.s3_storage import open_storage
from seedtrust_ops.sandbox.stack import start_sandbox

REAL = {
    "AWS_ENDPOINT_URL": "https://s3.example",
    "AWS_ENDPOINT_URL_S3": "https://s3.example",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_SESSION_TOKEN": "real-token",
    "REPORTS_BUCKET": "real-reports",
    "SMTP_HOST": "smtp.example",
    "SMTP_PORT": "2525",
    "SMTP_STARTTLS": "1",
    "SMTP_USERNAME": "real-user",
    "SMTP_PASSWORD": "real-password",
}


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


@pytest.mark.usefixtures("child_processes")
def test_shell_of_a_real_system_keeps_no_mail_login_and_no_s3_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_sandbox(tmp_path / "sandbox") as stack:
        for name, value in (REAL | stack.environment).items():
            monkeypatch.setenv(name, value)
        mail = MailSettings.read(REAL | stack.environment)
        assert (mail.username, mail.password, mail.port) == (None, None, stack.mailbox.smtp_port)
        open_storage(stack.environment["REPORTS_BUCKET"]).put("a.txt", b"a", "text/plain")
        assert stack.services.storage.keys() == ["a.txt"]
