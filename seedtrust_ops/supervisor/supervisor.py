"""Runs programs side by side: each starts when those before it are ready, and again when it dies.

It knows nothing of what they do; which ones production needs is in `worker`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from seedtrust_ops.supervisor.program import KeptRun, Program, Say

LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
LIVED_WELL_SECONDS = 60.0
"""A program that ran so long before it died is started again at once, as if it had never died."""


class Observer(Protocol):
    """Whom the supervisor tells what befalls its programs; it must answer at once and raise nothing."""

    def died(self, name: str, code: int, lived_seconds: float) -> None:
        """Hear that a program ended by itself."""

    def lived_well(self, name: str) -> None:
        """Hear that a program has run for LIVED_WELL_SECONDS."""


@dataclass
class _Place:
    program: Program
    run: KeptRun | None = None
    ready: bool = False
    lived_well: bool = False
    deaths: int = 0
    started_at: float = 0.0
    start_at: float = 0.0


class Supervisor:
    """Holds the programs; `run` is the only thing that starts them, so that no program ever runs twice."""

    def __init__(
        self, programs: Sequence[Program], say: Say, *, observer: Observer | None = None, lock: int | None = None
    ) -> None:
        """Take the programs in the order of their start; `say` is told what they print and what befalls them."""
        self._observer = observer
        self._places = [_Place(program) for program in programs]
        self._say = say
        self._lock = lock
        self.all_ready = Event()

    def run(self, stop: Event) -> None:
        """Keep the programs running until `stop` is set, then end them, the last started first."""
        try:
            while not stop.is_set():
                self._look()
                stop.wait(LOOK_SECONDS)
        finally:
            for place in reversed(self._places):
                if place.run is not None:
                    place.run.stop()
                    place.run = None

    def _look(self) -> None:
        for place in self._places:
            if place.run is not None and (code := place.run.exit_code()) is not None:
                self._mourn(place, code)
            if place.run is None and time.monotonic() >= place.start_at:
                place.run = KeptRun(place.program, self._say, lock=self._lock)
                place.started_at = time.monotonic()
                place.lived_well = False
            self._see_it_live(place)
            if place.run is not None and not place.ready:
                place.ready = place.program.is_ready()
            if not place.ready:
                # Those after it wait for it.
                return
        self.all_ready.set()

    def _see_it_live(self, place: _Place) -> None:
        if place.run is None or place.lived_well or time.monotonic() - place.started_at < LIVED_WELL_SECONDS:
            return
        place.lived_well = True
        if self._observer is not None:
            self._observer.lived_well(place.program.name)

    def _mourn(self, place: _Place, code: int) -> None:
        lived = time.monotonic() - place.started_at
        place.deaths = 1 if lived >= LIVED_WELL_SECONDS else place.deaths + 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (place.deaths - 1), LONGEST_PAUSE_SECONDS)
        place.run, place.ready, place.start_at = None, False, time.monotonic() + pause
        self._say(place.program.name, f"ended with code {code} after {lived:.0f} s; started again in {pause:g} s.")
        if self._observer is not None:
            self._observer.died(place.program.name, code, lived)
