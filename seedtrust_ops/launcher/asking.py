"""Asks a run host what it must answer at once, and ends one that does not: the kernel takes calls for a frozen one too.

What is asked, and what becomes of a run host that was ended, is the callers'.
"""

import json
import logging
import os
import select
import signal
import socket
import struct
from contextlib import suppress
from typing import Any

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
