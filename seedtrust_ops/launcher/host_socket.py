"""The folder where launchers find the run host of a DAGSTER_HOME: its socket, its lock file and its log.

Only the owner may enter the folder, because anyone who can write to the socket can run any code.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LAUNCHER_FOLDER = Path(".seedtrust") / "launcher"
"""Where the folder is, below DAGSTER_HOME."""
SOCKET_FILE = "run_host.socket"
LOCK_FILE = "run_host.lock"
LOG_FILE = "run_host.log"
OWNER_ONLY = 0o700
LISTEN_BACKLOG = 128
CONNECT_TIMEOUT_SECONDS = 30
"""How long a connection waits for a place in a full backlog."""


def make_folder(folder: Path) -> None:
    """Create the folder if it is missing, and close it to other users."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(OWNER_ONLY)


def try_lock(folder: Path) -> IO[str] | None:
    """Take the lock that the folder's one run host holds; return the file that holds it, or None if it is taken."""
    file = (folder / LOCK_FILE).open("w")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


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
        with _short_address(folder) as address:
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


def listen(folder: Path) -> socket.socket:
    """Listen in the folder. Only the process that holds the folder's lock may call this."""
    (folder / SOCKET_FILE).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_address(folder) as address:
        listener.bind(address)
    listener.listen(LISTEN_BACKLOG)
    return listener


@contextmanager
def _short_address(folder: Path) -> Iterator[str]:
    """Yield the socket's path through /proc: a unix socket's path is limited to 108 bytes, a DAGSTER_HOME is not."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
    finally:
        os.close(descriptor)
