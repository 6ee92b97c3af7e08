"""Starts a sandbox bank as a process of its own, and stops or kills it by its pid.

For the demo, `dev` and tests; the bank ends with whoever started it, however that one ends.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import IO, Self

import httpx

from seedtrust_ops.sandbox.bank.control import SandboxBank


@dataclass(frozen=True)
class BankProcess:
    """A running bank: where it listens, and all that a client needs to be told of it."""

    url: str
    pid: int
    api_key: str
    funding_account_id: str
    database: Path
    control: SandboxBank
    process: "subprocess.Popen[str]"

    def __enter__(self) -> Self:
        """`with start_bank(...) as bank:` stops it at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End it politely (SIGTERM), or with a kill where that takes longer than `timeout_seconds`."""
        self.process.terminate()
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def kill(self) -> None:
        """End it the hard way (SIGKILL), as a power cut to the bank's process would."""
        self.process.kill()
        self._ended()

    def _ended(self) -> None:
        self.process.wait()
        self.control.close()
        for pipe in (self.process.stdin, self.process.stdout):
            _existing(pipe).close()


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
    start_timeout_seconds: float = 30.0,
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
    process = subprocess.Popen(  # noqa: S603 - our own module, with options of our own
        [
            sys.executable,
            "-m",
            "seedtrust_ops.sandbox.bank",
            *(f"{name}={value}" for name, value in options.items()),
            "--until-stdin-closes",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = _announced_url(process, start_timeout_seconds)
        control = SandboxBank(url)
        control.wait_until_healthy(start_timeout_seconds)
    except (RuntimeError, httpx.HTTPError) as error:
        process.kill()
        process.wait()
        raise RuntimeError(f"The sandbox bank did not start within {start_timeout_seconds:g} s. {error}") from error
    return BankProcess(url, process.pid, api_key, funding_account_id, database, control, process)


def _announced_url(process: "subprocess.Popen[str]", timeout_seconds: float) -> str:
    output = _existing(process.stdout)
    with DefaultSelector() as selector:
        selector.register(output, EVENT_READ)
        line = output.readline() if selector.select(timeout_seconds) else ""
    if not line:
        raise RuntimeError("It never said where it listens.")
    return str(json.loads(line)["url"])


def _existing(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "start_bank opens both pipes"
    return pipe
