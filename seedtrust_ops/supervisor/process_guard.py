"""Guards one process: it and everything it starts are stopped when the supervisor exits, however the supervisor exits.

Run as `python -m seedtrust_ops.supervisor.process_guard`, in its own session. Restarting the process is up to the
supervisor.
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

from seedtrust_ops.supervisor.process_session import list_session_processes, terminate_session

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.25
CHILD_CHECK_SECONDS = 2.0
MIN_GRACE_SECONDS = 0.5
"""The remaining processes of a session get at least this long between SIGTERM and SIGKILL."""


def signal_on_parent_exit(number: signal.Signals) -> None:
    """Have the kernel send the signal to this process when its parent exits; only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number.value)


class ProcessGuard:
    """Starts the command, and stops it with its whole session when asked to or when its parent is gone."""

    def __init__(
        self, command: list[str], *, parent: int, stop_seconds: float, needs_child: bool, children_may_finish: bool
    ) -> None:
        self._parent = parent
        self._stop_seconds = stop_seconds
        self._needs_child = needs_child
        self._children_may_finish = children_may_finish
        self._child: psutil.Process | None = None
        self._stop_requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)
        signal_on_parent_exit(signal.SIGTERM)
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            # Nothing else runs in this process yet, so running Python between fork and exec is safe.
            preexec_fn=lambda: signal_on_parent_exit(signal.SIGKILL),
        )

    def run(self) -> int:
        """Wait until the process has ended; return its exit code (128 plus the number if a signal ended it)."""
        next_check = time.monotonic() + CHILD_CHECK_SECONDS
        while self._process.poll() is None:
            if self._should_stop:
                break
            if self._needs_child and time.monotonic() >= next_check:
                next_check = time.monotonic() + CHILD_CHECK_SECONDS
                if self._has_lost_child():
                    sys.stderr.write("The child process that does the work exited. Stopping this process too.\n")
                    break
            # Popen.wait with a timeout would poll twenty times a second.
            time.sleep(POLL_SECONDS)
        if self._children_may_finish and self._process.poll() is not None:
            self._wait_for_children()
        self._stop()
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requested = True

    @property
    def _should_stop(self) -> bool:
        # On platforms where the kernel does not report a parent's exit, a changed parent shows it.
        return self._stop_requested or os.getppid() != self._parent

    def _wait_for_children(self) -> None:
        """Wait until all children of the crashed process have exited, their time is up, or this guard must stop."""
        deadline = time.monotonic() + self._stop_seconds
        while not self._should_stop and time.monotonic() < deadline and list_session_processes(os.getpid()):
            time.sleep(POLL_SECONDS)

    def _has_lost_child(self) -> bool:
        # Listing children reads every process of the machine, so a child that was found is checked by itself.
        known = self._child
        if known is not None and _is_running(known):
            return False
        try:
            children = psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return False
        self._child = next(filter(_is_running, children), None)
        return known is not None and self._child is None

    def _stop(self) -> None:
        """Stop the process alone first, so that it can let its children finish; then stop what is left."""
        deadline = time.monotonic() + self._stop_seconds
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        terminate_session(os.getpid(), grace_seconds=max(MIN_GRACE_SECONDS, deadline - time.monotonic()))


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> None:
    """Guard the command given after `--` until it or the process `--parent` exits."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.supervisor.process_guard", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="the pid of the process that started this guard")
    parser.add_argument("--stop-seconds", type=float, required=True, help="time between SIGTERM and SIGKILL")
    parser.add_argument("--needs-child", action="store_true", help="stop the process when it has lost its children")
    parser.add_argument(
        "--children-may-finish", action="store_true", help="if the process crashes, give its children the stop seconds"
    )
    parser.add_argument("command", nargs="+", help="the command to run")
    options = parser.parse_args()
    guard = ProcessGuard(
        options.command,
        parent=options.parent,
        stop_seconds=options.stop_seconds,
        needs_child=options.needs_child,
        children_may_finish=options.children_may_finish,
    )
    sys.exit(guard.run())


if __name__ == "__main__":
    main()
