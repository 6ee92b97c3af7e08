"""Forks a process so that the child is whole: nothing shared with the parent that only one of them can have.

What the child does is not its business.
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

INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM})
STANDARD_STREAMS = 2
SHARED_KINDS = ("socket:", "pipe:", "anon_inode:")


def reason_not_to_fork(*, own: int) -> str | None:
    """Return what a fork of this process would share or lose, None where nothing stands against it.

    Args:
        own: a descriptor that may be open, beside standard input, output and error.
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        return f"loading the code started threads ({threads} run; Python knows of {names}), which a fork would lose"
    for descriptor in sorted(int(name) for name in os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            # The one that listed them.
            continue
        if descriptor > STANDARD_STREAMS and descriptor != own and target.startswith(SHARED_KINDS):
            return f"loading the code opened a connection (descriptor {descriptor}: {target}), which forks would share"
    return None


def freeze() -> None:
    """Let the garbage collector of forks pass over all that exists now, so that they go on sharing its memory.

    The collector is to be off until then: what it frees leaves holes, and a fork that fills one gets a page of its own.
    """
    gc.freeze()


def fork_orphan(body: Callable[[], int]) -> int:
    """Run `body` in a new process that is no child of this one; return its pid once it exists.

    Its parent is the nearest ancestor that collects orphans. It leads a process group of its own and has SIGINT
    and SIGTERM blocked.

    Raises:
        OSError: when the machine has no room for another process.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader) as said:
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        try:
            between = os.fork()
            if between == 0:
                _fork_again(body, said, writer)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
            os.close(writer)
        pid = said.read()
    os.waitpid(between, 0)
    if not pid:
        raise OSError("the forked process could not fork again")
    return int(pid)


def _fork_again(body: Callable[[], int], said: IO[str], writer: int) -> None:
    """Fork and tell the pid. Neither process ever returns from here."""
    code = 1
    try:
        # The parent's end.
        said.close()
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.close(writer)
        os.setpgid(0, 0)
        code = _whole(body)
    except BaseException:  # noqa: BLE001  the parent's code must not go on in this process, whatever happens
        traceback.print_exc()
    finally:
        os._exit(code)


def _whole(body: Callable[[], int]) -> int:
    """Run `body` and end as a process does that was not forked; return the exit code."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Python makes its own random numbers differ in every fork, numpy does not.
        numpy.random.seed()
    gc.enable()
    try:
        return body()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()


def collected() -> Iterator[int]:
    """Collect every dead child, those left to us by others too; yield their pids."""
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid


def has_children() -> bool:
    """Return whether any child of ours is left, dead ones that were not collected yet included."""
    return _is_waited_for(os.P_ALL, 0)


def is_own_child(pid: int) -> bool:
    """Return whether `pid` is a child of ours that was not collected yet."""
    return _is_waited_for(os.P_PID, pid)


def _is_waited_for(kind: int, pid: int) -> bool:
    try:
        os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
