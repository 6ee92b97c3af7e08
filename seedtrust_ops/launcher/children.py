"""The children of this process: which are left, and which have died and are collected.

What they were for is not its business.
"""

import os
from collections.abc import Iterator
from contextlib import suppress


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
