"""Worker processes: each runs one task and is forked from a server that has everything loaded, so hundreds are cheap.

What a task does is in `task_runner`.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from seedtrust_ops_tests.chaos.task_runner import run_task
from seedtrust_ops_tests.chaos.tasks import Task, TaskResult

TIMEOUT_SECONDS = 300
"""How long to wait for a worker. Most take 0.2 s; the first one on a busy machine takes a hundred times as long."""


class WorkerProcess:
    """A running worker and the pipe on which it reports."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def has_message(self) -> bool:
        """Whether a message, or the end of the process, can be received without waiting."""
        return self._pipe.poll(0)

    def receive(self) -> Any:
        """Return the worker's next message, None if it crashed; raises if nothing arrives in time."""
        if not self._pipe.poll(TIMEOUT_SECONDS):
            raise AssertionError(f"The worker sent nothing for {TIMEOUT_SECONDS} seconds.")
        try:
            return self._pipe.recv()
        except EOFError:
            return None

    def resume(self) -> None:
        """Let a worker that is paused at its injection point continue."""
        self._pipe.send("resume")

    def wait(self) -> TaskResult | None:
        """Wait for the process to end; return its result, None if it crashed."""
        result = None
        while (message := self.receive()) is not None:
            if isinstance(message, TaskResult):
                result = message
        self.process.join(TIMEOUT_SECONDS)
        return result


@contextmanager
def start_worker(task: Task) -> Iterator[WorkerProcess]:
    """Start a worker on a task; it is killed at the end of the block, whatever it is doing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seedtrust_ops_tests.chaos.task_runner"])
    own_end, worker_end = context.Pipe()
    process = context.Process(target=run_task, args=(task, worker_end), daemon=True)
    process.start()
    worker_end.close()
    try:
        yield WorkerProcess(process, own_end)
    finally:
        process.kill()
        process.join()
        process.close()
        own_end.close()


def run_worker(task: Task) -> TaskResult | None:
    """Run a task in a worker process; return its result, None if the worker crashed."""
    with start_worker(task) as worker:
        return worker.wait()
