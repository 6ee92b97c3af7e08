"""Keeps one process, so that it and all that it starts end when whoever asked for it does, however that one ends.

Run as `python -m seedtrust_ops.supervisor.process_guard`, in a session of its own. Whether the process is started
again is the supervisor's to say.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

from seedtrust_ops.supervisor.process_group import end_session, members

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.25
CHILD_CHECK_SECONDS = 2.0
POLITE_SECONDS = 0.5
"""What is left of a session is asked to end at least so long before it is killed."""


def die_with_parent(sign: signal.Signals) -> None:
    """Let the kernel send `sign` to this process when its parent dies; only Linux has that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, sign.value)


class Keeper:
    """Starts the command, and ends it with its whole session when told to or when left alone."""

    def __init__(
        self, command: list[str], *, parent: int, stop_seconds: float, needs_child: bool, children_may_finish: bool
    ) -> None:
        self._parent = parent
        self._stop_seconds = stop_seconds
        self._needs_child = needs_child
        self._children_may_finish = children_may_finish
        self._child: psutil.Process | None = None
        self._told_to_stop = False
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._stop)
        die_with_parent(signal.SIGTERM)
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            # Nothing else runs in this process yet, so running Python between fork and exec is safe.
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
        )

    def keep(self) -> int:
        """Wait for the end; return the process's exit code (128 and the signal's number where a signal ended it)."""
        next_check = time.monotonic() + CHILD_CHECK_SECONDS
        while self._process.poll() is None:
            if self._is_to_end:
                break
            if self._needs_child and time.monotonic() >= next_check:
                next_check = time.monotonic() + CHILD_CHECK_SECONDS
                if self._lost_its_child():
                    sys.stderr.write("The process lost the child that does its work, so it is ended.\n")
                    break
            # The process's own `wait` would look twenty times a second.
            time.sleep(LOOK_SECONDS)
        if self._children_may_finish and self._process.poll() is not None:
            self._let_children_finish()
        self._end()
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    @property
    def _is_to_end(self) -> bool:
        # Where the kernel tells nobody of a parent's death, a changed parent does.
        return self._told_to_stop or os.getppid() != self._parent

    def _let_children_finish(self) -> None:
        """Wait until nothing is left of what the dead process started, its time is over, or this keeper is to end."""
        deadline = time.monotonic() + self._stop_seconds
        while not self._is_to_end and time.monotonic() < deadline and members(os.getpid()):
            time.sleep(LOOK_SECONDS)

    def _lost_its_child(self) -> bool:
        # To look for children is to read of every process on the machine, so the one that was found is watched.
        known = self._child
        if known is not None and _works(known):
            return False
        try:
            children = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return False
        self._child = next(filter(_works, children), None)
        return known is not None and self._child is None

    def _end(self) -> None:
        """Ask the process alone to end, so that it can let what it started finish; then end what is left."""
        deadline = time.monotonic() + self._stop_seconds
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        end_session(os.getpid(), polite_seconds=max(POLITE_SECONDS, deadline - time.monotonic()))


def _works(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Keep the command given after `--` until it or the process `--parent` ends."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.supervisor.process_guard", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="the pid that started this keeper")
    parser.add_argument("--stop-seconds", type=float, required=True, help="from SIGTERM to SIGKILL")
    parser.add_argument("--needs-child", action="store_true", help="end the process when it has lost its children")
    parser.add_argument(
        "--children-may-finish", action="store_true", help="where the process dies, give its children the stop seconds"
    )
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    keeper = Keeper(
        options.command,
        parent=options.parent,
        stop_seconds=options.stop_seconds,
        needs_child=options.needs_child,
        children_may_finish=options.children_may_finish,
    )
    sys.exit(keeper.keep())


if __name__ == "__main__":
    main()
