"""Starts a server of the sandbox as a process of its own, stops or kills it by its pid, and starts it again.

The process ends with whoever started it, however that one ends; what the server is, its own module says.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import IO
from urllib.parse import urlsplit


@dataclass
class ServerProcess:
    """A server, where it listens, and how it was started; `revive` replaces its process."""

    url: str
    process: "subprocess.Popen[str]"
    module: str
    options: dict[str, object]
    what: str

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End it politely (SIGTERM), or with a kill where that takes longer than `timeout_seconds`."""
        self.process.terminate()
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def kill(self) -> None:
        """End it the hard way (SIGKILL), as a power cut would."""
        self.process.kill()
        self._ended()

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended."""
        return self.process.poll() is not None

    def revive(self) -> None:
        """Start it again at its old address, as it was started first.

        Raises:
            RuntimeError: as `start_server`.
        """
        if not self.is_dead:
            return
        port = urlsplit(self.url).port
        self.process = start_server(self.module, self.options | {"--port": port}, what=self.what).process

    def _ended(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            _existing(pipe).close()


def start_server(
    module: str, options: Mapping[str, object], *, what: str, start_timeout_seconds: float = 120.0
) -> ServerProcess:
    """Start `python -m module` with these options and wait until it says where it listens.

    Raises:
        RuntimeError: naming `what` did not come up in time; what it had to say went to standard error.
    """
    process = subprocess.Popen(  # noqa: S603 - our own module, with options of our own
        [
            sys.executable,
            "-m",
            module,
            *(f"{name}={value}" for name, value in options.items()),
            "--until-stdin-closes",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C in a terminal must reach whoever started it alone: what still talks to the server ends first.
        start_new_session=True,
    )
    try:
        url = _announced_url(process, start_timeout_seconds)
    except RuntimeError as error:
        process.kill()
        process.wait()
        raise RuntimeError(f"{what} did not start within {start_timeout_seconds:g} s. {error}") from error
    return ServerProcess(url, process, module, dict(options), what)


def _announced_url(process: "subprocess.Popen[str]", timeout_seconds: float) -> str:
    output = _existing(process.stdout)
    with DefaultSelector() as selector:
        selector.register(output, EVENT_READ)
        line = output.readline() if selector.select(timeout_seconds) else ""
    if not line:
        raise RuntimeError("It never said where it listens.")
    return str(json.loads(line)["url"])


def _existing(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "start_server opens both pipes"
    return pipe
