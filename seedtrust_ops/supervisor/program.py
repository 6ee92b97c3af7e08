"""A program to run, and one run of it under a process guard, with its output forwarded line by line.

When to restart it, and what else runs beside it, is in `supervisor`.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from seedtrust_ops.supervisor.process_session import terminate_session

PrintLine = Callable[[str, str], None]
"""Takes a program's name and one line of its output. Raises nothing, even if the line cannot be written."""
GUARD_EXIT_SECONDS = 10.0
"""How much longer than the process itself its guard may take to exit."""


def _always_ready() -> bool:
    return True


@dataclass(frozen=True)
class Program:
    """What to run; times are in seconds."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_seconds: float = 10.0
    """How long it may take to shut down before it is killed."""
    needs_child: bool = False
    """Whether it is useless without the child process that it starts."""
    children_may_finish: bool = False
    """Whether its children get `stop_seconds` to finish after it crashes; it is restarted when that time is over."""
    is_ready: Callable[[], bool] = _always_ready
    """Returns whether the programs after it may start."""


class GuardedProcess:
    """One run of a program: a process guard and its process. Start it from a thread that lives as long as the run."""

    def __init__(self, program: Program, print_line: PrintLine, *, lock: int | None = None) -> None:
        """Start the program. `lock` is the descriptor of a locked file that stays locked until the run has ended."""
        self.program = program
        self._guard = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-m",
                "seedtrust_ops.supervisor.process_guard",
                f"--parent={os.getpid()}",
                f"--stop-seconds={program.stop_seconds}",
                *(["--needs-child"] if program.needs_child else []),
                *(["--children-may-finish"] if program.children_may_finish else []),
                "--",
                *program.command,
            ],
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C in a terminal must reach the supervisor alone: it stops the others in order.
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
        assert self._guard.stdout is not None, "stdout is a pipe"
        threading.Thread(
            target=_forward_output, args=(program.name, self._guard.stdout, print_line), daemon=True
        ).start()

    @property
    def pid(self) -> int:
        """The guard's pid, which is also the session id of everything that the program starts."""
        return self._guard.pid

    def exit_code(self) -> int | None:
        """Return the exit code once the program and everything it started have ended, None before."""
        code = self._guard.poll()
        if code is not None:
            # A guard that was killed could not do this itself.
            terminate_session(self.pid)
        return code

    def stop(self) -> None:
        """Stop the program and everything that it started; kill what is left after its stop time."""
        self._guard.terminate()
        try:
            self._guard.wait(2 * self.program.stop_seconds + GUARD_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        terminate_session(self.pid)


def _forward_output(name: str, output: IO[str], print_line: PrintLine) -> None:
    with output:
        for line in output:
            print_line(name, line.rstrip("\n"))
