"""Runs programs side by side: starts each one when those before it are ready, and restarts it when it crashes.

It does not know what the programs do; the ones that production runs are in `worker_stack`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from seedtrust_ops.supervisor.program import GuardedProcess, PrintLine, Program

POLL_SECONDS = 0.2
MIN_RESTART_DELAY_SECONDS = 0.5
MAX_RESTART_DELAY_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""A program that ran this long before a crash is restarted with the shortest delay, as after a first crash."""


class Observer(Protocol):
    """Receives the crashes and recoveries of the supervisor's programs; must return at once and raise nothing."""

    def on_crash(self, name: str, code: int, uptime_seconds: float) -> None:
        """Handle that a program exited on its own."""

    def on_recovery(self, name: str) -> None:
        """Handle that a program has run for STABLE_SECONDS."""


@dataclass
class _Slot:
    program: Program
    run: GuardedProcess | None = None
    is_ready: bool = False
    is_stable: bool = False
    crashes: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


class Supervisor:
    """Owns the programs; only `run` starts them, so that no program ever runs twice."""

    def __init__(
        self,
        programs: Sequence[Program],
        print_line: PrintLine,
        *,
        print_output: PrintLine | None = None,
        observer: Observer | None = None,
        lock: int | None = None,
    ) -> None:
        """Take the programs in start order.

        `print_line` receives the supervisor's messages, and the programs' output if there is no `print_output` for it.
        """
        self._observer = observer
        self._print_output = print_output or print_line
        self._slots = [_Slot(program) for program in programs]
        self._print_line = print_line
        self._lock = lock
        self.all_ready = Event()

    def run(self, stop: Event) -> None:
        """Keep the programs running until `stop` is set, then stop them in reverse start order."""
        try:
            while not stop.is_set():
                self._check_programs()
                stop.wait(POLL_SECONDS)
        finally:
            for slot in reversed(self._slots):
                if slot.run is not None:
                    slot.run.stop()
                    slot.run = None

    def _check_programs(self) -> None:
        for slot in self._slots:
            if slot.run is not None and (code := slot.run.exit_code()) is not None:
                self._schedule_restart(slot, code)
            if slot.run is None and time.monotonic() >= slot.start_at:
                slot.run = GuardedProcess(slot.program, self._print_output, lock=self._lock)
                slot.started_at = time.monotonic()
                slot.is_stable = False
            self._check_stability(slot)
            if slot.run is not None and not slot.is_ready:
                slot.is_ready = slot.program.is_ready()
            if not slot.is_ready:
                # The programs after it wait for it.
                return
        self.all_ready.set()

    def _check_stability(self, slot: _Slot) -> None:
        if slot.run is None or slot.is_stable or time.monotonic() - slot.started_at < STABLE_SECONDS:
            return
        slot.is_stable = True
        if self._observer is not None:
            self._observer.on_recovery(slot.program.name)

    def _schedule_restart(self, slot: _Slot, code: int) -> None:
        uptime = time.monotonic() - slot.started_at
        slot.crashes = 1 if uptime >= STABLE_SECONDS else slot.crashes + 1
        delay = min(MIN_RESTART_DELAY_SECONDS * 2 ** (slot.crashes - 1), MAX_RESTART_DELAY_SECONDS)
        slot.run, slot.is_ready, slot.start_at = None, False, time.monotonic() + delay
        self._print_line(slot.program.name, f"Exited with code {code} after {uptime:.0f} s. Restarting in {delay:g} s.")
        if self._observer is not None:
            self._observer.on_crash(slot.program.name, code, uptime)
