"""The processes of one session, which is how a kept process and all that it ever started are told from others.

A child that changes its parent (because its own died) stays in the session; it says nothing of what they do.
"""

import os
import signal
import time

import psutil

KILL_SECONDS = 5.0
LOOK_SECONDS = 0.05


def members(session_id: int) -> list[psutil.Process]:
    """Return the living processes of the session, without the one that leads it."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != session_id
                and os.getsid(process.pid) == session_id
                # A dead one whose new parent does not collect it can neither be ended nor do harm.
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            # It ended meanwhile, or is somebody else's.
            continue
    return found


def end_session(session_id: int, *, polite_seconds: float = 0.0) -> None:
    """End what still lives of the session, its leader excepted: asked to for `polite_seconds`, then killed."""
    if polite_seconds > 0 and not _signalled(session_id, signal.SIGTERM, polite_seconds):
        return
    _signalled(session_id, signal.SIGKILL, KILL_SECONDS)


def _signalled(session_id: int, sign: signal.Signals, seconds: float) -> list[psutil.Process]:
    """Send `sign` to the session's members and return those that live on after `seconds`."""
    left = members(session_id)
    for process in left:
        try:
            process.send_signal(sign)
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        left = members(session_id)
    return left
