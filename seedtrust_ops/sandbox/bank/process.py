"""Starts a sandbox bank as a child process, and stops or kills it.

For the demo, `dev` and tests. The bank stops when its parent process exits, even if the parent is killed.
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
    """A running bank and everything a client needs to use it."""

    server: ServerProcess
    api_key: str
    funding_account_id: str
    database: Path
    control: SandboxBank

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.server.url

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.server.pid

    @property
    def process(self) -> "subprocess.Popen[str]":
        """Its process."""
        return self.server.process

    def __enter__(self) -> Self:
        """Use it in a `with` block to stop it at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Stop it with SIGTERM, or with SIGKILL if it takes longer than `timeout_seconds`."""
        self.server.stop(timeout_seconds)
        self.control.close()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power failure would."""
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
    """Start a bank on the file `database` (created if missing) and wait until it responds.

    Port 0 picks a free one; pass a killed bank's port to restart it at the same URL. Money is in cents, times are in
    seconds, `latency_ms` is added to every /v1 request.

    Raises:
        RuntimeError: if the bank does not start within `start_timeout_seconds`; its output is on standard error.
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
        label="The sandbox bank",
        start_timeout_seconds=start_timeout_seconds,
    )
    control = SandboxBank(server.url)
    try:
        control.wait_until_healthy(start_timeout_seconds)
    except httpx.HTTPError as error:
        server.kill()
        raise RuntimeError(f"The sandbox bank did not start within {start_timeout_seconds:g} s. {error}") from error
    return BankProcess(server, api_key, funding_account_id, database, control)
