"""Starts a sandbox bank as a process of its own, and stops or kills it by its pid.

For the demo, `dev` and tests; the bank ends with whoever started it, however that one ends.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from seedtrust_ops.sandbox.bank.control_client import SandboxBank
from seedtrust_ops.sandbox.server_process import ServerProcess, start_server


@dataclass(frozen=True)
class BankProcess:
    """A running bank: where it listens, and all that a client needs to be told of it."""

    server: ServerProcess
    api_key: str
    funding_account_id: str
    database: Path
    control: SandboxBank

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    @property
    def pid(self) -> int:
        """Its process's number."""
        return self.server.pid

    @property
    def process(self) -> "subprocess.Popen[str]":
        """Its process."""
        return self.server.process

    def __enter__(self) -> Self:
        """`with start_bank(...) as bank:` stops it at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End it politely (SIGTERM), or with a kill where that takes longer than `timeout_seconds`."""
        self.server.stop(timeout_seconds)
        self.control.close()

    def kill(self) -> None:
        """End it the hard way (SIGKILL), as a power cut to the bank's process would."""
        self.server.kill()
        self.control.close()


def start_bank(
    database: Path,
    *,
    api_key: str,
    port: int = 0,
    funding_account_id: str = "acct_escrow",
    available_cents: int = 100_000_000_000,
    ach_settlement_seconds: float = 86_400,
    latency_ms: float = 0,
    page_size: int = 100,
    start_timeout_seconds: float = 120.0,
) -> BankProcess:
    """Start a bank on `database` (made where it is missing) and wait until it answers.

    Port 0 takes a free one; give a killed bank's port to put it back at its old url. Raises RuntimeError
    where the bank does not come up within `start_timeout_seconds`; what it had to say went to standard error.
    """
    options = {
        "--port": port,
        "--database": database,
        "--api-key": api_key,
        "--funding-account-id": funding_account_id,
        "--available-cents": available_cents,
        "--ach-settlement-seconds": ach_settlement_seconds,
        "--latency-ms": latency_ms,
        "--page-size": page_size,
    }
    server = start_server(
        "seedtrust_ops.sandbox.bank",
        options,
        what="The sandbox bank",
        start_timeout_seconds=start_timeout_seconds,
    )
    control = SandboxBank(server.url)
    try:
        control.wait_until_healthy(start_timeout_seconds)
    except httpx.HTTPError as error:
        server.kill()
        raise RuntimeError(f"The sandbox bank did not start within {start_timeout_seconds:g} s. {error}") from error
    return BankProcess(server, api_key, funding_account_id, database, control)
