"""Starts runs for all launchers of a DAGSTER_HOME, warm where it can and cold where not, and is their parent.

It outlives daemons, web servers and code servers, so that none of them takes runs along. It knows no Dagster: a run
is a process to it. Run as `python -m seedtrust_ops.launcher.run_host --folder FOLDER`, by `seedtrust-ops worker`
(`--keep`), or by the first launcher that finds none (`--detach`).
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from seedtrust_ops.launcher.forking import collected, has_children, is_own_child
from seedtrust_ops.launcher.host_client import ask
from seedtrust_ops.launcher.host_socket import (
    SOCKET,
    WAITING_CALLERS,
    call,
    is_answered,
    listen,
    make_folder,
    try_lock,
)
from seedtrust_ops.launcher.wire_protocol import ALIVE, LONGEST_LINE, RETIRE, Answer, CodeToLoad, LaunchOrder
from seedtrust_ops.launcher.zygote_client import Lost, Stale, Unfit, WarmProcess, start_cold

PR_SET_CHILD_SUBREAPER = 36
ENDING = Answer(refused="the run host is about to end")
MOST_ZYGOTES = 2
"""One for the daemon's environment, and one for another launcher's."""
RELOADS = 3
UNFIT_SECONDS = 60.0
"""For so long code that can't be kept warm is not tried again."""
LOOK_SECONDS = 0.2
INTERRUPTED_SECONDS = 10.0
"""How long interrupted runs may take to end before they are killed."""
PARTING_SECONDS = 5.0
"""How long zygotes are given to go, so that it is this process that collects them."""
PREDECESSOR_SECONDS = 50.0
"""Longer than it takes to find that it is frozen."""


class RunHost:
    """Serves launchers at its socket until it is told to stop or nobody needs it."""

    def __init__(self, folder: Path, lock: IO[str], *, run_seconds: float, linger_seconds: float) -> None:
        """Take what was found out before it serves.

        Args:
            folder: the launcher's folder.
            lock: the file that holds the folder's lock.
            run_seconds: how long runs may take to finish when it is told to stop.
            linger_seconds: how long it waits for a launcher when no run and no launcher is left; infinite where
                somebody else says when it is to stop.
        """
        self._folder = folder
        self._lock = lock
        self._run_seconds = run_seconds
        self._linger_seconds = linger_seconds
        self._zygotes: dict[str, WarmProcess] = {}
        self._unfit: dict[str, tuple[float, str]] = {}
        self._runs: set[int] = set()
        self._callers: set[asyncio.StreamWriter] = set()
        self._orders = 0
        self._time_to_end: float | None = None

    async def serve(self, listener: socket.socket, *, first: LaunchOrder | None) -> None:
        """Answer launchers until it is time to end, then let the runs end.

        Args:
            listener: the socket to answer at.
            first: an order like those to come, whose code is loaded at once; it is not started.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop_within, self._run_seconds)
        if first is not None:
            self._zygote_for(first)
        server = await asyncio.start_unix_server(self._answer, sock=listener, limit=LONGEST_LINE)
        needed_at = time.monotonic()
        while self._time_to_end is None:
            # Need is looked for first: on a busy machine much more time may have passed than was slept.
            if self._callers or self._runs:
                needed_at = time.monotonic()
            elif time.monotonic() > needed_at + self._linger_seconds:
                self._stop_within(float("inf"))
            await asyncio.sleep(LOOK_SECONDS)
        server.close()
        (self._folder / SOCKET).unlink(missing_ok=True)
        self._lock.close()
        while self._orders:
            await asyncio.sleep(LOOK_SECONDS)
        for zygote in self._zygotes.values():
            zygote.retire()
        await self._let_runs_end()
        gone_by = time.monotonic() + PARTING_SECONDS
        for caller in self._callers:
            caller.close()
        while (self._callers or has_children()) and time.monotonic() < gone_by:
            await asyncio.sleep(LOOK_SECONDS)

    def _stop_within(self, seconds: float) -> None:
        self._time_to_end = time.monotonic() + seconds

    async def _let_runs_end(self) -> None:
        await self._wait_for_runs()
        for pid in self._runs:
            # The run's own process alone: Dagster passes it on to what it started.
            os.kill(pid, signal.SIGINT)
        await self._wait_for_runs(longer=INTERRUPTED_SECONDS)
        for pid in self._runs:
            os.killpg(pid, signal.SIGKILL)
        await self._wait_for_runs(longer=float("inf"))

    async def _wait_for_runs(self, *, longer: float = 0.0) -> None:
        """Return when no run is left, or it is time to end and `longer` seconds have passed since."""
        assert self._time_to_end is not None, "it is only waited for an end"
        while self._runs and time.monotonic() < self._time_to_end + longer:
            await asyncio.sleep(LOOK_SECONDS)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one caller; while it stays connected this run host is needed."""
        self._callers.add(writer)
        try:
            while line := await _next_line(reader):
                answer = await self._obey(json.loads(line))
                # Where it is gone, what it ordered goes on.
                with suppress(ConnectionError):
                    writer.write(json.dumps(asdict(answer)).encode() + b"\n")
                    await writer.drain()
        finally:
            self._callers.discard(writer)
            writer.close()

    async def _obey(self, message: dict[str, Any]) -> Answer:
        if message == ALIVE:
            return Answer()
        try:
            order = None if message == RETIRE else LaunchOrder.from_json(message)
        except (KeyError, TypeError):
            say("A launcher of another version called.")
            order = None
        if order is None:
            # Whoever needs a run host starts the next one; here the runs under way go on to their ends.
            self._stop_within(float("inf"))
        if order is None or self._time_to_end is not None:
            return ENDING
        self._orders += 1
        try:
            return await self._start(order)
        finally:
            self._orders -= 1

    async def _start(self, order: LaunchOrder) -> Answer:
        pid, why_cold = await self._forked(order)
        if pid is None:
            try:
                pid = start_cold(order, str(self._folder))
            except OSError as error:
                return Answer(refused=f"no process could be started: {error}")
        if is_own_child(pid):
            self._runs.add(pid)
        if why_cold is not None:
            say(f"Run {order.run_id} was started cold: {why_cold}.")
        return Answer(pid=pid, cold=why_cold)

    async def _forked(self, order: LaunchOrder) -> tuple[int | None, str | None]:
        """Return a forked worker's pid, or why there is none."""
        if order.code.module is None:
            return None, "its code is not a module, and only modules are kept loaded"
        said_at, reason = self._unfit.get(order.key, (0.0, ""))
        if reason and time.monotonic() < said_at + UNFIT_SECONDS:
            return None, reason
        for _ in range(RELOADS):
            try:
                zygote = self._zygote_for(order)
            except OSError as error:
                return None, f"no warm process could be started: {error}"
            try:
                return await zygote.fork(order), None
            except Stale as stale:
                reason = str(stale)
                self._drop(zygote)
                say(f"{stale}; it is loaded anew.")
            except (Unfit, Lost) as trouble:
                reason = str(trouble)
                self._drop(zygote)
                if zygote.was_ready:
                    # This run need not wait for the next zygote; the next run should find it.
                    self._zygote_for(order)
                else:
                    self._unfit[order.key] = time.monotonic(), reason
                break
        return None, reason

    def _zygote_for(self, order: LaunchOrder) -> WarmProcess:
        """Return the order's zygote, started where there is none; the one that was used least lately makes room."""
        zygote = self._zygotes.pop(order.key, None) or WarmProcess(order, str(self._folder))
        self._zygotes[order.key] = zygote
        while len(self._zygotes) > MOST_ZYGOTES:
            self._zygotes.pop(next(iter(self._zygotes))).retire()
        return zygote

    def _drop(self, zygote: WarmProcess) -> None:
        if self._zygotes.get(zygote.key) is zygote:
            del self._zygotes[zygote.key]
        zygote.retire()

    def _collect(self) -> None:
        """Collect every dead child: runs, zygotes, and what a dead run left to us."""
        self._runs.difference_update(collected())


async def _next_line(caller: asyncio.StreamReader) -> bytes:
    """Return what the caller says next, nothing where it is gone."""
    with suppress(ConnectionError):
        return await caller.readline()
    return b""


def say(sentence: str) -> None:
    """Print one line, at once. Where it can't be written it is lost: no run may wait for room on a disk."""
    with suppress(OSError):
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()


def take_over(folder: Path, *, keep: bool) -> IO[str] | None:
    """Return the folder's lock; where another run host has it, one to be kept lets that one retire."""
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    while (lock := try_lock(folder)) is None:
        if not keep and is_answered(folder):
            return None
        if time.monotonic() > deadline:
            sys.exit(f"Another run host has {folder} and neither serves nor ends.")
        with suppress(FileNotFoundError, ConnectionError, TimeoutError, BlockingIOError), call(folder) as caller:
            if keep:
                ask(caller, RETIRE)
        time.sleep(LOOK_SECONDS)
    return lock


def main() -> None:
    """Serve the folder given."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.run_host", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the launcher's folder")
    parser.add_argument("--keep", action="store_true", help="stay when nobody calls; take over from one that was not")
    parser.add_argument("--detach", action="store_true", help="return as soon as it serves, and go on without a parent")
    parser.add_argument("--run-seconds", type=float, default=45.0, help="what runs are given when it is told to stop")
    parser.add_argument("--linger-seconds", type=float, default=60.0, help="how long it stays when nobody calls")
    parser.add_argument("--warm", metavar="MODULE", help="a code location's module to load at once")
    options = parser.parse_args()
    make_folder(options.folder)
    lock = take_over(options.folder, keep=options.keep)
    if lock is None:
        return
    listener = listen(options.folder)
    if options.detach:
        if os.fork():
            os._exit(0)
        os.setsid()
        # Callers are told the pid of who listened last, and that one is gone.
        listener.listen(WAITING_CALLERS)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    linger_seconds = float("inf") if options.keep else options.linger_seconds
    host = RunHost(options.folder, lock, run_seconds=options.run_seconds, linger_seconds=linger_seconds)
    asyncio.run(host.serve(listener, first=_like_those_to_come(options.warm) if options.warm else None))


def _like_those_to_come(module: str) -> LaunchOrder:
    """Return an order as the launchers beside us send them: with our own Python, variables and directory."""
    # It weighs more than all else of this process, and only a kept one needs it.
    from seedtrust_ops.config import environment_for_child

    code = CodeToLoad(python=sys.executable, module=module, code_folder=os.getcwd())
    return LaunchOrder("", "", code, environment_for_child({}), os.getcwd())


if __name__ == "__main__":
    main()
