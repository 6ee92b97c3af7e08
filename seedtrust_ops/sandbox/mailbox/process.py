"""Starts the sandbox's mail server as a process of its own, and stops or kills it by its pid.

For the demo, `dev` and tests; the server ends with whoever started it, however that one ends.
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
    """A running mail server: its SMTP port on loopback, and its control."""

    server: ServerProcess
    smtp_port: int
    control: SandboxMailbox
    username: str | None = None
    password: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make SeedTrust send its letters here."""
        login = {"SMTP_USERNAME": self.username, "SMTP_PASSWORD": self.password}
        return {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.smtp_port),
            "SMTP_STARTTLS": "0",
            "EMAIL_FROM": SENDER,
            **{name: value for name, value in login.items() if value is not None},
        }

    def __enter__(self) -> Self:
        """`with start_mailbox(...) as mailbox:` stops it at the end."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop it."""
        self.stop()

    def stop(self) -> None:
        """End it politely (SIGTERM)."""
        self.server.stop()
        self.control.close()

    def kill(self) -> None:
        """End it the hard way (SIGKILL)."""
        self.server.kill()
        self.control.close()


def start_mailbox(
    file: Path, *, smtp_port: int = 0, username: str | None = None, password: str | None = None
) -> MailboxProcess:
    """Start a mail server that keeps its letters in `file` (made where it is missing) and wait until it answers.

    Port 0 takes a free one; give a killed server's port to put it back in its place. Raises RuntimeError where it
    does not come up.
    """
    options: dict[str, object] = {"--file": file, "--smtp-port": smtp_port}
    if username is not None and password is not None:
        options |= {"--username": username, "--password": password}
    server = start_server("seedtrust_ops.sandbox.mailbox", options, what="The sandbox mail server")
    control = SandboxMailbox(server.url)
    try:
        taken = control.smtp_port()
    except httpx.HTTPError as error:
        server.kill()
        control.close()
        raise RuntimeError(f"The sandbox mail server does not answer. {error}") from error
    # Revived, it must listen where its clients know it.
    server.options["--smtp-port"] = taken
    return MailboxProcess(server, taken, control, username, password)
