"""The processes of one session, which is how a kept process and all that it ever started are told from others.

A child that changes its parent (because its own died) stays in the session; it says nothing of what they do.
"""

import os

import psutil

KILL_SECONDS = 5.0


def members(session_id: int) -> list[psutil.Process]:
    """Return the living processes of the session, without the one that leads it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != session_id and os.getsid(process.pid) == session_id:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            # It ended meanwhile, or is somebody else's.
            continue
    return found


def end_session(session_id: int) -> None:
    """Kill what still lives of the session, its leader excepted, and wait until it is gone."""
    left = members(session_id)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, KILL_SECONDS)
