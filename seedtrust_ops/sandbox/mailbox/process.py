"""Starts the sandbox's mail server as a child process, and stops or kills it.

For the demo, `dev` and tests. The server stops when its parent process exits, even if the parent is killed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from seedtrust_ops.sandbox.mailbox.control_client import SandboxMailbox
from seedtrust_ops.sandbox.server_process import ServerProcess, start_server

SENDER = "SeedTrust Escrow <escrow@seedtrust.example>"


@dataclass(frozen=True)
class MailboxProcess:
    """A running mail server: its SMTP port on loopback, and the client of its control endpoints."""

    server: ServerProcess
    smtp_port: int
    control: SandboxMailbox
    username: str | None = None
    password: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make SeedTrust send its emails here."""
        login = {"SMTP_USERNAME": self.username, "SMTP_PASSWORD": self.password}
        return {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.smtp_port),
            "SMTP_STARTTLS": "0",
            "EMAIL_FROM": SENDER,
            **{name: value for name, value in login.items() if value is not None},
        }

    def __enter__(self) -> Self:
        """Use it in a `with` block to stop it at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """Stop it with SIGTERM."""
        self.server.stop()
        self.control.close()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.server.kill()
        self.control.close()


def start_mailbox(
    file: Path, *, smtp_port: int = 0, username: str | None = None, password: str | None = None
) -> MailboxProcess:
    """Start a mail server that stores its emails in `file` (created if missing) and wait until it responds.

    Port 0 picks a free one; pass a killed server's port to replace that server.

    Raises:
        RuntimeError: if it does not start.
    """
    options: dict[str, object] = {"--file": file, "--smtp-port": smtp_port}
    if username is not None and password is not None:
        options |= {"--username": username, "--password": password}
    server = start_server("seedtrust_ops.sandbox.mailbox", options, label="The sandbox mail server")
    control = SandboxMailbox(server.url)
    try:
        assigned_port = control.smtp_port()
    except httpx.HTTPError as error:
        server.kill()
        control.close()
        raise RuntimeError(f"The sandbox mail server did not respond. {error}") from error
    # After a restart it must listen on the port that its clients already use.
    server.options["--smtp-port"] = assigned_port
    return MailboxProcess(server, assigned_port, control, username, password)
