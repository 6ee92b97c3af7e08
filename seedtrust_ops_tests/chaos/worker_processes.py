"""Runners: workers in processes of their own, each forked from a server that has everything loaded.

So that hundreds of them cost little. What they do is `working`'s.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from seedtrust_ops_tests.chaos.task_runner import work
from seedtrust_ops_tests.chaos.tasks import Errand, Told

PATIENCE_SECONDS = 300
"""How long a worker is waited for; most take a fifth of a second, the first on a busy machine a hundred times that."""


class Runner:
    """A worker under way."""

    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self.process = process
        self._line = line

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def has_spoken(self) -> bool:
        """Whether there is something to hear, the end of the line included."""
        return self._line.poll(0)

    def hear(self) -> Any:
        """Return the next thing that the worker says, None where it has died; raises where it says nothing."""
        if not self._line.poll(PATIENCE_SECONDS):
            raise AssertionError(f"The worker said nothing for {PATIENCE_SECONDS} seconds.")
        try:
            return self._line.recv()
        except EOFError:
            return None

    def go_on(self) -> None:
        """Give a worker that told of its moment leave to go on."""
        self._line.send("go on")

    def end(self) -> Told | None:
        """Wait for the end; return what the worker told, None where it died."""
        told = None
        while (word := self.hear()) is not None:
            if isinstance(word, Told):
                told = word
        self.process.join(PATIENCE_SECONDS)
        return told


@contextmanager
def sent_on(errand: Errand) -> Iterator[Runner]:
    """Send a worker on an errand; at the end it is gone, whatever it was doing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seedtrust_ops_tests.chaos.task_runner"])
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(errand, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Runner(process, ours)
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def run(errand: Errand) -> Told | None:
    """Send a worker on an errand and wait for its end; return what it told, None where it died."""
    with sent_on(errand) as runner:
        return runner.end()
