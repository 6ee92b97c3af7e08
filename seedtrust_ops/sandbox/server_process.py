"""Starts a sandbox server as a child process, stops or kills it, and restarts it at the same address.

The child stops when its parent exits, even if the parent is killed. The servers themselves are in their own packages.
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
    """A running server, its address, and how it was started; `restart` replaces its process."""

    url: str
    process: "subprocess.Popen[str]"
    module: str
    options: dict[str, object]
    label: str
    """What messages call it, for example "The sandbox bank"."""

    @property
    def pid(self) -> int:
        """The process id; it changes when the server is restarted."""
        return self.process.pid

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Stop it with SIGTERM, or with SIGKILL if it takes longer than `timeout_seconds`."""
        self.process.terminate()
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._clean_up()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power failure would."""
        self.process.kill()
        self._clean_up()

    @property
    def has_stopped(self) -> bool:
        """Whether its process has exited."""
        return self.process.poll() is not None

    def restart(self) -> None:
        """Restart it at the same address with the same options, if it has stopped.

        Raises:
            RuntimeError: if it does not start, as `start_server`.
        """
        if not self.has_stopped:
            return
        port = urlsplit(self.url).port
        self.process = start_server(self.module, self.options | {"--port": port}, label=self.label).process

    def _clean_up(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            _require_pipe(pipe).close()


def start_server(
    module: str, options: Mapping[str, object], *, label: str, start_timeout_seconds: float = 120.0
) -> ServerProcess:
    """Start `python -m module` with these options and wait until it prints its address.

    Raises:
        RuntimeError: if it does not start within `start_timeout_seconds`; its own output is on standard error.
    """
    process = subprocess.Popen(  # noqa: S603 - module and options come from our own code
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
        # Ctrl-C in a terminal must reach only the parent, so that the server's clients stop before the server does.
        start_new_session=True,
    )
    try:
        url = _read_url(process, start_timeout_seconds)
    except RuntimeError as error:
        process.kill()
        process.wait()
        raise RuntimeError(f"{label} did not start within {start_timeout_seconds:g} s. {error}") from error
    return ServerProcess(url, process, module, dict(options), label)


def _read_url(process: "subprocess.Popen[str]", timeout_seconds: float) -> str:
    output = _require_pipe(process.stdout)
    with DefaultSelector() as selector:
        selector.register(output, EVENT_READ)
        line = output.readline() if selector.select(timeout_seconds) else ""
    if not line:
        raise RuntimeError("It did not print its address.")
    return str(json.loads(line)["url"])


def _require_pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "start_server opens both pipes"
    return pipe
