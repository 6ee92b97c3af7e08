"""The processes of one POSIX session: a supervised process and everything it ever started.

A child whose parent exits gets a new parent but stays in the session. What the processes do is not known here.
"""

import os
import signal
import time

import psutil

KILL_SECONDS = 5.0
POLL_SECONDS = 0.05


def list_session_processes(session_id: int) -> list[psutil.Process]:
    """Return the running processes of the session, except its leader."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.pid != session_id
                and os.getsid(process.pid) == session_id
                # A zombie that its new parent does not reap can neither be stopped nor do harm.
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            # The process has exited meanwhile, or belongs to another user.
            continue
    return found


def terminate_session(session_id: int, *, grace_seconds: float = 0.0) -> None:
    """Stop what is still running in the session, except its leader: SIGTERM, and after `grace_seconds` SIGKILL."""
    if grace_seconds > 0 and not _signal_and_wait(session_id, signal.SIGTERM, grace_seconds):
        return
    _signal_and_wait(session_id, signal.SIGKILL, KILL_SECONDS)


def _signal_and_wait(session_id: int, number: signal.Signals, seconds: float) -> list[psutil.Process]:
    """Send the signal to the session's processes and return those that are still running after `seconds`."""
    running = list_session_processes(session_id)
    for process in running:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + seconds
    while running and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        running = list_session_processes(session_id)
    return running
