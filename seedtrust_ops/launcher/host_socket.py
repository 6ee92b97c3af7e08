"""The folder by which launchers find the run host of a DAGSTER_HOME: its socket, its lock, its log.

Only its owner may enter it, because whoever can write to the socket can run anything.
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
"""Where it is, below DAGSTER_HOME."""
SOCKET = "run_host.socket"
LOCK = "run_host.lock"
LOG = "run_host.log"
OWNER_ONLY = 0o700
WAITING_CALLERS = 128
CALL_SECONDS = 30
"""How long one more waits for a place among them."""


def make_folder(folder: Path) -> None:
    """Create the folder where it is missing, and close it to others."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(OWNER_ONLY)


def try_lock(folder: Path) -> IO[str] | None:
    """Take the lock that one run host of the folder has; return the file that holds it, None where another does."""
    file = (folder / LOCK).open("w")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def call(folder: Path) -> socket.socket:
    """Return a connection to the folder's run host.

    Raises:
        FileNotFoundError, ConnectionRefusedError: when none listens.
        BlockingIOError: when too many wait for it already, as they would for a frozen one.
    """
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Python's own timeout would not wait at all for a place among those that wait.
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CALL_SECONDS, 0))
    try:
        with _short(folder) as address:
            caller.connect(address)
    except BaseException:
        caller.close()
        raise
    return caller


def is_answered(folder: Path) -> bool:
    """Return whether a run host listens in the folder."""
    try:
        call(folder).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        # So many wait for it that no other may.
        return True
    return True


def listen(folder: Path) -> socket.socket:
    """Listen in the folder; for who has its lock alone."""
    (folder / SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(folder) as address:
        listener.bind(address)
    listener.listen(WAITING_CALLERS)
    return listener


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Yield the socket's address by a detour: a unix socket's path may have 108 bytes, a DAGSTER_HOME's any number."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
