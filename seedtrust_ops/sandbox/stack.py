"""The whole sandbox: one server for each external service, and the environment variables that point SeedTrust at them.

To add a server, start it in `start_sandbox` or `start_external_services`. Each server provides its own variables.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.external_services.control_client import (
    CloudFrontServer,
    InternalApiServer,
    PostHogServer,
    StorageServer,
    start_cloudfront,
    start_internal_api,
    start_posthog,
    start_storage,
)
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops.sandbox.server_process import ServerProcess

API_KEY = "sandbox-key"
BUCKET = "seedtrust-reports"


class SandboxNotStarted(SeedTrustError):
    """A server of the sandbox did not start."""


@dataclass(frozen=True)
class ExternalServices:
    """The running servers of S3, CloudFront, the internal API and PostHog."""

    storage: StorageServer
    cloudfront: CloudFrontServer
    internal_api: InternalApiServer
    posthog: PostHogServer

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make SeedTrust use all of them."""
        return {
            **self.storage.environment,
            **self.cloudfront.environment,
            **self.internal_api.environment,
            **self.posthog.environment,
        }


@dataclass(frozen=True)
class SandboxStack:
    """All running servers of the sandbox."""

    bank: BankProcess
    mailbox: MailboxProcess
    services: ExternalServices

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make SeedTrust use these servers."""
        return {
            "HUNTINGTON_API_URL": self.bank.url,
            "HUNTINGTON_API_KEY": self.bank.api_key,
            "HUNTINGTON_FUNDING_ACCOUNT_ID": self.bank.funding_account_id,
            # A shell of a real system may have a login for its mail server, and variables that boto3 prefers.
            "SMTP_USERNAME": "",
            "SMTP_PASSWORD": "",
            **self.mailbox.environment,
            **self.services.environment,
            "AWS_ENDPOINT_URL_S3": self.services.storage.url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            "AWS_SESSION_TOKEN": "",
        }

    def restart_stopped(self) -> list[str]:
        """Restart every server that has stopped, at its old address; return their labels.

        Raises:
            RuntimeError: if a server does not start; the message names it.
        """
        services = self.services
        servers: list[tuple[ServerProcess, Callable[[], None]]] = [
            (self.bank.server, self.bank.server.restart),
            (self.mailbox.server, self.mailbox.server.restart),
            *((one.server, one.restart) for one in (services.storage, services.cloudfront)),
            *((one.server, one.restart) for one in (services.internal_api, services.posthog)),
        ]
        stopped = [(server, restart) for server, restart in servers if server.has_stopped]
        for _, restart in stopped:
            restart()
        return [server.label for server, _ in stopped]


@contextmanager
def start_external_services(*, internal_api_key: str, bucket: str = BUCKET) -> Iterator[ExternalServices]:
    """Start all four in parallel and stop them when the block ends.

    Raises:
        RuntimeError: if a server does not start; the message names it, and the others are stopped.
    """
    with ThreadPoolExecutor(4) as threads, ExitStack() as running:
        storage = threads.submit(start_storage, bucket)
        cloudfront = threads.submit(start_cloudfront)
        internal_api = threads.submit(start_internal_api, internal_api_key)
        posthog = threads.submit(start_posthog)
        for future in (storage, cloudfront, internal_api, posthog):
            if future.exception() is None:
                running.enter_context(future.result())
        yield ExternalServices(storage.result(), cloudfront.result(), internal_api.result(), posthog.result())


@contextmanager
def start_sandbox(folder: Path, *, ach_settlement_seconds: float = 86_400) -> Iterator[SandboxStack]:
    """Start all servers, with their data in `folder`, and stop them when the block ends.

    Args:
        folder: where the bank and the mail server keep their files; created if missing.
        ach_settlement_seconds: how long an accepted ACH takes to complete.

    Raises:
        SandboxNotStarted: if a server does not start; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        try:
            services = running.enter_context(start_external_services(internal_api_key=API_KEY))
            mailbox = running.enter_context(start_mailbox(folder / "mailbox.sqlite"))
            bank = running.enter_context(
                start_bank(folder / "bank.sqlite", api_key=API_KEY, ach_settlement_seconds=ach_settlement_seconds)
            )
        except RuntimeError as error:
            raise SandboxNotStarted(str(error)) from error
        yield SandboxStack(bank, mailbox, services)


def load_or_create_field_key(folder: Path) -> str:
    """Return the Fernet key stored in `folder`, creating it if missing. For laptops only, never for production."""
    path = folder / "field_key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(Fernet.generate_key().decode())
    return path.read_text().strip()
