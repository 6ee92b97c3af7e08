"""The outside world on one laptop: every server that stands in for a vendor, and the environment that names them.

Whoever adds a server starts it in `start_world`; its variables come from itself.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank
from seedtrust_ops.sandbox.external_services.server_group import OutsideWorld, start_outside_world
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops.sandbox.server_process import ServerProcess

API_KEY = "sandbox-key"


class WorldNotStarted(SeedTrustError):
    """A server of the sandbox did not come up."""


@dataclass(frozen=True)
class World:
    """The running servers."""

    bank: BankProcess
    mailbox: MailboxProcess
    outside: OutsideWorld

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make SeedTrust use them."""
        return {
            "HUNTINGTON_API_URL": self.bank.url,
            "HUNTINGTON_API_KEY": self.bank.api_key,
            "HUNTINGTON_FUNDING_ACCOUNT_ID": self.bank.funding_account_id,
            **self.mailbox.environment,
            **self.outside.environment,
        }

    def revive(self) -> list[str]:
        """Start again, at its old address, every server that has died; return which.

        Raises:
            RuntimeError: saying which one did not come up.
        """
        outside = self.outside
        servers: list[tuple[ServerProcess, Callable[[], None]]] = [
            (self.bank.server, self.bank.server.revive),
            (self.mailbox.server, self.mailbox.server.revive),
            *((one.server, one.revive) for one in (outside.storage, outside.cloudfront)),
            *((one.server, one.revive) for one in (outside.internal_api, outside.posthog)),
        ]
        dead = [(server, revive) for server, revive in servers if server.is_dead]
        for _, revive in dead:
            revive()
        return [server.what for server, _ in dead]


@contextmanager
def start_world(folder: Path, *, ach_settlement_seconds: float = 86_400) -> Iterator[World]:
    """Start all servers, which keep what they must in `folder`, and stop them when the block ends.

    Raises:
        WorldNotStarted: saying which one did not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        try:
            outside = running.enter_context(start_outside_world(internal_api_key=API_KEY))
            mailbox = running.enter_context(start_mailbox(folder / "mailbox.sqlite"))
            bank = running.enter_context(
                start_bank(folder / "bank.sqlite", api_key=API_KEY, ach_settlement_seconds=ach_settlement_seconds)
            )
        except RuntimeError as error:
            raise WorldNotStarted(str(error)) from error
        yield World(bank, mailbox, outside)


def field_key(folder: Path) -> str:
    """Return the Fernet key that lies in `folder`, making it where there is none: for laptops, never for production."""
    path = folder / "field_key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(Fernet.generate_key().decode())
    return path.read_text().strip()
