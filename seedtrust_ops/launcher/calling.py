"""A launcher's way to the run host: calls it, starts it where there is none, and tries again where it died or froze.

What the run host does with an order is in `run_host`.
"""

import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from seedtrust_ops.errors import OperationsError
from seedtrust_ops.launcher.asking import ask
from seedtrust_ops.launcher.messages import ALIVE, Answer, LaunchOrder
from seedtrust_ops.launcher.run_host_folder import LOG, call, make_folder

ANSWER_SECONDS = 180.0
"""Longer than loading and forking may take together."""
START_SECONDS = 60.0
"""Longer than a run host that starts waits for one before it."""
TRIES = 4
PAUSE_SECONDS = 0.5


class RunNotStarted(OperationsError):
    """No process could be started for a run."""


class RunHostCaller:
    """Asks the run host of one folder. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._held: socket.socket | None = None

    def launch(self, order: LaunchOrder) -> Answer:
        """Have the run started; return its pid and whether it was cold.

        An order whose answer is lost is given again: of two workers of one run, the second does nothing.

        Raises:
            RunNotStarted: when the run host can't be reached or could not start it.
        """
        trouble = "it was not reached"
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE_SECONDS)
            try:
                answer = self._ask(order)
            except OSError as error:
                trouble = str(error)
                continue
            if answer.refused is None:
                return answer
            trouble = answer.refused
        raise RunNotStarted(
            f"Run {order.run_id} was not started: {trouble}. Look into {self._folder / LOG} and the worker's output; "
            "launch it again when that is mended."
        )

    def hang_up(self) -> None:
        """Need the run host no more."""
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None

    def _ask(self, order: LaunchOrder) -> Answer:
        connection = self._call()
        try:
            # An order takes its time, so that it is no order by which one that is frozen can be told.
            ask(connection, ALIVE)
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(json.dumps(asdict(order)).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as answers:
                line = answers.readline()
        except BaseException:
            connection.close()
            raise
        self._hold(connection)
        return Answer(**json.loads(line)) if line else Answer(refused="the run host died")

    def _hold(self, connection: socket.socket) -> None:
        """Stay connected, which tells the run host that it is needed."""
        with self._lock:
            previous, self._held = self._held, connection
        if previous is not None:
            previous.close()

    def _call(self) -> socket.socket:
        make_folder(self._folder)
        try:
            return call(self._folder)
        except (FileNotFoundError, ConnectionRefusedError):
            self._start_run_host()
            return call(self._folder)

    def _start_run_host(self) -> None:
        """Start one that belongs to nobody; returns when one serves, whoever started it."""
        with (self._folder / LOG).open("a") as log:
            log.truncate(0)
            try:
                subprocess.run(  # noqa: S603
                    [sys.executable, "-m", "seedtrust_ops.launcher.run_host", f"--folder={self._folder}", "--detach"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=START_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"no run host came up within {START_SECONDS:g} s") from None
