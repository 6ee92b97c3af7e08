"""A launcher's way to the run host: calls it, starts it where there is none, and tries again where it died or froze.

What the run host does with an order is in `run_host`.
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
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.launcher.host_socket import LOG, call, make_folder
from seedtrust_ops.launcher.wire_protocol import ALIVE, Answer, LaunchOrder

ANSWER_SECONDS = 180.0
"""Longer than loading and forking may take together."""
START_SECONDS = 60.0
"""Longer than a run host that starts waits for one before it."""
TRIES = 4
PAUSE_SECONDS = 0.5


class RunNotStarted(SeedTrustError):
    """No process could be started for a run."""


class RunHostClient:
    """Asks the run host of one folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._held: socket.socket | None = None

    def launch(self, order: LaunchOrder) -> Answer:
        """Have the run started; return its pid and whether it was cold.

        An order whose answer is lost is given again: of two workers of one run, the second does nothing.

        Raises:
            RunNotStarted: when the run host can't be reached or could not start it.
        """
        trouble = "it was not reached"
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            try:
                answer = self._ask(order)
            except OSError as error:
                trouble = str(error)
                continue
            if answer.refused is None:
                return answer
            trouble = answer.refused
        raise RunNotStarted(
            f"Run {order.run_id} was not started: {trouble}. Look into {self._folder / LOG} and the worker's output; "
            "launch it again when that is mended."
        )

    def hang_up(self) -> None:
        """Need the run host no more."""
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None

    def _ask(self, order: LaunchOrder) -> Answer:
        connection = self._call()
        try:
            # An order takes its time, so that it is no order by which one that is frozen can be told.
            ask(connection, ALIVE)
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(json.dumps(asdict(order)).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as answers:
                line = answers.readline()
        except BaseException:
            connection.close()
            raise
        self._hold(connection)
        return Answer(**json.loads(line)) if line else Answer(refused="the run host died")

    def _hold(self, connection: socket.socket) -> None:
        """Stay connected, which tells the run host that it is needed."""
        with self._lock:
            previous, self._held = self._held, connection
        if previous is not None:
            previous.close()

    def _call(self) -> socket.socket:
        make_folder(self._folder)
        try:
            return call(self._folder)
        except (FileNotFoundError, ConnectionRefusedError):
            self._start_run_host()
            return call(self._folder)

    def _start_run_host(self) -> None:
        """Start one that belongs to nobody; returns when one serves, whoever started it."""
        with (self._folder / LOG).open("a") as log:
            log.truncate(0)
            try:
                subprocess.run(  # noqa: S603
                    [sys.executable, "-m", "seedtrust_ops.launcher.run_host", f"--folder={self._folder}", "--detach"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=START_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"no run host came up within {START_SECONDS:g} s") from None


_logger = logging.getLogger(__name__)

TURNS = 3
TURN_SECONDS = 10.0
"""However busy the machine is, a run host that lives says one line within all turns. There are several, because where
all processes stood still, it may be this one that goes on first."""
CREDENTIALS = "3i"
"""Of a connection's other end: pid, user and group (unix(7))."""


def ask(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send the message and wait for a line.

    Raises:
        OSError: when the run host is gone, or said nothing and was ended where it can be; its runs go on.
    """
    connection.sendall(json.dumps(message).encode() + b"\n")
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    if not any(waiting.poll(TURN_SECONDS * 1_000) for _ in range(TURNS)):
        pid = listening_pid(connection)
        trouble = f"the run host (process {pid}) said nothing for {TURNS * TURN_SECONDS:g} s"
        _logger.warning("%s", trouble)
        # A process that can't be seen from here, another container's, is number 0, which would signal our own group.
        if pid != 0:
            with suppress(ProcessLookupError):  # somebody else has ended it
                os.kill(pid, signal.SIGKILL)
        raise TimeoutError(trouble)
    with connection.makefile("r", encoding="utf-8") as answers:
        answers.readline()


def listening_pid(connection: socket.socket) -> int:
    """Return the pid of the run host at the other end, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(CREDENTIALS))
    pid: int = struct.unpack(CREDENTIALS, credentials)[0]
    return pid
