"""The whole sandbox: one server for each external service, and the environment variables that point SeedTrust at them.

To add a server, start it in `start_sandbox`. Each server provides its own variables.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.external_services.server_group import ExternalServices, start_external_services
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops.sandbox.server_process import ServerProcess

API_KEY = "sandbox-key"


class SandboxNotStarted(SeedTrustError):
    """A server of the sandbox did not start."""


@dataclass(frozen=True)
class SandboxStack:
    """The running servers of the sandbox."""

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
            **self.mailbox.environment,
            **self.services.environment,
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
