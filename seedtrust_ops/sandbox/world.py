"""The outside world on one laptop: every server that stands in for a vendor, and the environment that names them.

Today it is the bank; whoever adds a server starts it in `start_world` and adds its variables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet

from seedtrust_ops.errors import OperationsError
from seedtrust_ops.sandbox.bank.process import BankProcess, start_bank

API_KEY = "sandbox-key"


class WorldNotStarted(OperationsError):
    """A server of the sandbox did not come up."""


@dataclass(frozen=True)
class World:
    """The running servers, and the variables that make SeedTrust use them."""

    bank: BankProcess
    environment: dict[str, str]


@contextmanager
def start_world(folder: Path, *, ach_settlement_seconds: float = 86_400) -> Iterator[World]:
    """Start all servers, which keep what they must in `folder`, and stop them when the block ends.

    Raises:
        WorldNotStarted: saying which one did not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        bank = start_bank(folder / "bank.sqlite", api_key=API_KEY, ach_settlement_seconds=ach_settlement_seconds)
    except RuntimeError as error:
        raise WorldNotStarted(str(error)) from error
    with bank:
        yield World(
            bank=bank,
            environment={
                "HUNTINGTON_API_URL": bank.url,
                "HUNTINGTON_API_KEY": bank.api_key,
                "HUNTINGTON_FUNDING_ACCOUNT_ID": bank.funding_account_id,
            },
        )


def field_key(folder: Path) -> str:
    """Return the Fernet key that lies in `folder`, making it where there is none: for laptops, never for production."""
    path = folder / "field_key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(Fernet.generate_key().decode())
    return path.read_text().strip()
