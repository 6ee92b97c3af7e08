"""Reaches the run host of a DAGSTER_HOME: connects to it, starts one if there is none, and replaces one that hangs.

Its socket is in the launcher's folder, which only the owner may enter, because anyone who can write to the socket can
run any code. What the run host does with a launch request is in `run_host`.
"""

import json
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.launcher.private_folder import make_private_folder
from seedtrust_ops.launcher.wire_protocol import PING, LaunchRequest, LaunchResponse

LAUNCHER_FOLDER = Path(".seedtrust") / "launcher"
"""Where the launcher's folder is, below DAGSTER_HOME."""
SOCKET_FILE = "run_host.socket"
LOG_FILE = "run_host.log"
CONNECT_TIMEOUT_SECONDS = 30
"""How long a connection waits for a place in a full backlog."""
LAUNCH_TIMEOUT_SECONDS = 180.0
"""Longer than loading the code and forking can take together."""
START_TIMEOUT_SECONDS = 60.0
"""Longer than a starting run host waits for its predecessor."""
MAX_ATTEMPTS = 4
RETRY_DELAY_SECONDS = 0.5
PROBES = 3
PROBE_SECONDS = 10.0
"""However busy the machine is, a healthy run host sends one line within PROBES x PROBE_SECONDS. There are several
probes because after a pause of the whole machine this process may be the first to resume."""
PEER_CREDENTIALS_FORMAT = "3i"
"""The pid, user and group of the other end of a unix socket (unix(7))."""

_logger = logging.getLogger(__name__)


class RunNotStarted(SeedTrustError):
    """No process could be started for a run."""


class RunHostClient:
    """Sends launch requests to the run host of one folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._held: socket.socket | None = None

    def launch(self, request: LaunchRequest) -> LaunchResponse:
        """Have the run host start the run's worker; return its pid and, for a cold start, the reason.

        A request whose response is lost is sent again: if a run gets two workers, the second one exits at once.

        Raises:
            RunNotStarted: if the run host cannot be reached or could not start the run.
        """
        reason = "the run host was not reached"
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                time.sleep(RETRY_DELAY_SECONDS)
            try:
                response = self._send(request)
            except OSError as error:
                reason = str(error)
                continue
            if response.refused is None:
                return response
            reason = response.refused
        raise RunNotStarted(
            f"Run {request.run_id} was not started: {reason}. Check {self._folder / LOG_FILE} and the worker's output, "
            "fix the cause, then launch the run again."
        )

    def disconnect(self) -> None:
        """Close the connection, which lets a run host exit that nobody else needs."""
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None

    def _send(self, request: LaunchRequest) -> LaunchResponse:
        connection = self._connect()
        try:
            # A launch takes a while, so its response time cannot show whether the run host hangs. A ping can.
            request_or_kill(connection, PING)
            connection.settimeout(LAUNCH_TIMEOUT_SECONDS)
            connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as responses:
                line = responses.readline()
        except BaseException:
            connection.close()
            raise
        self._hold(connection)
        return LaunchResponse(**json.loads(line)) if line else LaunchResponse(refused="the run host crashed")

    def _hold(self, connection: socket.socket) -> None:
        """Stay connected, which shows the run host that it is needed."""
        with self._lock:
            previous, self._held = self._held, connection
        if previous is not None:
            previous.close()

    def _connect(self) -> socket.socket:
        make_private_folder(self._folder)
        try:
            return connect(self._folder)
        except (FileNotFoundError, ConnectionRefusedError):
            self._start_run_host()
            return connect(self._folder)

    def _start_run_host(self) -> None:
        """Start a detached run host; return when one is serving, even if another launcher started it."""
        with (self._folder / LOG_FILE).open("a") as log:
            log.truncate(0)
            try:
                subprocess.run(  # noqa: S603
                    [sys.executable, "-m", "seedtrust_ops.launcher.run_host", f"--folder={self._folder}", "--detach"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=START_TIMEOUT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"no run host was ready within {START_TIMEOUT_SECONDS:g} s") from None


def request_or_kill(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send the message and wait for a line; kill a run host that does not respond. Its runs continue.

    Raises:
        OSError: if the run host is gone, or did not respond and was killed (if it is visible from this container).
    """
    connection.sendall(json.dumps(message).encode() + b"\n")
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    if not any(poller.poll(PROBE_SECONDS * 1_000) for _ in range(PROBES)):
        pid = get_listener_pid(connection)
        reason = f"the run host (process {pid}) did not respond for {PROBES * PROBE_SECONDS:g} s"
        _logger.warning("%s", reason)
        # A process that is not visible from here (in another container) has pid 0, which would signal our own group.
        if pid != 0:
            with suppress(ProcessLookupError):  # another launcher has killed it
                os.kill(pid, signal.SIGKILL)
        raise TimeoutError(reason)
    with connection.makefile("r", encoding="utf-8") as responses:
        responses.readline()


def get_listener_pid(connection: socket.socket) -> int:
    """Return the pid of the run host at the other end, as the kernel reports it."""
    size = struct.calcsize(PEER_CREDENTIALS_FORMAT)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack(PEER_CREDENTIALS_FORMAT, credentials)[0]
    return pid


def connect(folder: Path) -> socket.socket:
    """Return a connection to the folder's run host.

    Raises:
        FileNotFoundError, ConnectionRefusedError: if no run host listens.
        BlockingIOError: if the backlog stays full, as it does for a run host that hangs.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout would not wait at all for a place in the backlog.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_TIMEOUT_SECONDS, 0))
    try:
        with short_address(folder) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def is_serving(folder: Path) -> bool:
    """Return whether a run host listens in the folder."""
    try:
        connect(folder).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        # The backlog is full, so something does listen.
        return True
    return True


@contextmanager
def short_address(folder: Path) -> Iterator[str]:
    """Yield the socket's path through /proc: a unix socket's path is limited to 108 bytes, a DAGSTER_HOME is not."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
    finally:
        os.close(descriptor)
