"""A program that is to run, and one run of it under a keeper, its output handed on line by line.

When it is started again, and what else runs beside it, is the supervisor's.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

from seedtrust_ops.supervisor.process_group import end_session

Say = Callable[[str, str], None]
"""Takes a program's name and one line of what it says; raises nothing, where that can't be written either."""
KEEPER_SECONDS = 10.0
"""How much longer than the process itself its keeper may take to end."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class Program:
    """What to run; times in seconds."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_seconds: float = 10.0
    """How long it may take to end by itself before it is killed."""
    needs_child: bool = False
    """Whether it is useless without the child process that it starts."""
    children_may_finish: bool = False
    """Whether its children have `stop_seconds` to finish where it dies by itself; it is started again after that."""
    is_ready: Callable[[], bool] = _always
    """Says whether those that start after it may start."""


class KeptRun:
    """One run of a program: a keeper and its process. To be started from a thread that lives as long as it."""

    def __init__(self, program: Program, say: Say, *, lock: int | None = None) -> None:
        """Start it. `lock` is a locked file's descriptor that stays locked until the run has ended."""
        self.program = program
        self._keeper = subprocess.Popen(  # noqa: S603
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
            # Ctrl-C in a terminal must reach the supervisor alone: it ends the others in order.
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
        assert self._keeper.stdout is not None, "a pipe was asked for"
        threading.Thread(target=_hand_on, args=(program.name, self._keeper.stdout, say), daemon=True).start()

    @property
    def pid(self) -> int:
        """The keeper's pid, which is also the session of all that the program starts."""
        return self._keeper.pid

    def exit_code(self) -> int | None:
        """Return the exit code once the program has ended and nothing of it is left, None before."""
        code = self._keeper.poll()
        if code is not None:
            # A keeper that was killed could not do this itself.
            end_session(self.pid)
        return code

    def stop(self) -> None:
        """End the program and all that it started: politely at first, by force after its deadline."""
        self._keeper.terminate()
        try:
            self._keeper.wait(2 * self.program.stop_seconds + KEEPER_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        end_session(self.pid)


def _hand_on(name: str, output: IO[str], say: Say) -> None:
    with output:
        for line in output:
            say(name, line.rstrip("\n"))
