"""Forks a process safely, and tracks the child processes: no child shares a connection or a lock with its parent.

What a child process does is decided by the caller.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
LAST_STANDARD_DESCRIPTOR = 2
SHARED_PREFIXES = ("socket:", "pipe:", "anon_inode:")
"""What `/proc/self/fd` shows for a descriptor that a parent and its fork cannot both use."""


def find_fork_obstacle(*, allowed_descriptor: int) -> str | None:
    """Return why this process must not be forked (what a fork would share or lose), or None if it can be.

    Args:
        allowed_descriptor: a descriptor that may be open besides standard input, output and error.
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        return f"loading the code started threads that a fork would lose ({threads} running; known to Python: {names})"
    for descriptor in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            # This is the descriptor that listed the folder; it is closed by now.
            continue
        is_expected = descriptor <= LAST_STANDARD_DESCRIPTOR or descriptor == allowed_descriptor
        if not is_expected and target.startswith(SHARED_PREFIXES):
            return f"loading the code opened a connection that forks would share (descriptor {descriptor}: {target})"
    return None


def freeze_heap() -> None:
    """Exclude all existing objects from garbage collection in forks, so that forks keep sharing their memory.

    Keep the collector off until then: freeing objects leaves holes, and a fork that fills a hole gets its own copy of
    that memory page.
    """
    gc.freeze()


def fork_detached(body: Callable[[], int]) -> int:
    """Run `body` in a new process that is not a child of this one; return its pid once it exists.

    Its parent is the nearest ancestor that adopts orphans. It leads its own process group, and starts with SIGINT and
    SIGTERM blocked.

    Raises:
        OSError: if the machine cannot create another process.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader) as pid_pipe:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            intermediate = os.fork()
            if intermediate == 0:
                _fork_again(body, pid_pipe, writer)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            os.close(writer)
        pid = pid_pipe.read()
    os.waitpid(intermediate, 0)
    if not pid:
        raise OSError("the forked process could not fork again")
    return int(pid)


def _fork_again(body: Callable[[], int], pid_pipe: IO[str], writer: int) -> None:
    """Fork once more and report the new pid. Neither process ever returns from here."""
    code = 1
    try:
        # The reading end belongs to the parent.
        pid_pipe.close()
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.close(writer)
        os.setpgid(0, 0)
        code = _run_child(body)
    except BaseException:  # noqa: BLE001  the parent's code must not continue in this process, whatever happens
        traceback.print_exc()
    finally:
        os._exit(code)


def _run_child(body: Callable[[], int]) -> int:
    """Run `body`, then exit as a process does that was not forked; return the exit code."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Python reseeds its own random numbers in every fork; numpy does not.
        numpy.random.seed()
    gc.enable()
    try:
        return body()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()


def reap_children() -> Iterator[int]:
    """Reap every child process that has exited, adopted orphans included; yield their pids."""
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid


def has_children() -> bool:
    """Return whether this process has any child process, including one that exited but was not reaped yet."""
    return _is_waitable(os.P_ALL, 0)


def is_own_child(pid: int) -> bool:
    """Return whether `pid` is a child of this process that was not reaped yet."""
    return _is_waitable(os.P_PID, pid)


def _is_waitable(kind: int, pid: int) -> bool:
    try:
        os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
