"""The parent process of all runs of a DAGSTER_HOME: starts them for every launcher, warm if possible, otherwise cold.

It outlives daemons, web servers and code servers, so that stopping one of them stops no run. It imports no Dagster: to
it a run is a process. Run as `python -m seedtrust_ops.launcher.run_host --folder FOLDER`, by `seedtrust-ops worker`
(`--keep`), or by the first launcher that finds none (`--detach`).
See docs/decisions/warm-launcher.md.
"""

import argparse
import asyncio
import ctypes
import fcntl
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

from seedtrust_ops.launcher.forking import has_children, is_own_child, reap_children
from seedtrust_ops.launcher.host_client import SOCKET_FILE, connect, is_serving, request_or_kill, short_address
from seedtrust_ops.launcher.private_folder import make_private_folder
from seedtrust_ops.launcher.wire_protocol import (
    MAX_LINE_BYTES,
    PING,
    RETIRE,
    CodeToLoad,
    LaunchRequest,
    LaunchResponse,
)
from seedtrust_ops.launcher.zygote_client import StaleCode, ZygoteClient, ZygoteLost, ZygoteUnfit, start_cold

LOCK_FILE = "run_host.lock"
LISTEN_BACKLOG = 128
PR_SET_CHILD_SUBREAPER = 36
SHUTTING_DOWN = LaunchResponse(refused="the run host is shutting down")
MAX_ZYGOTES = 2
"""One for the daemon's environment, and one for another launcher's."""
MAX_RELOADS = 3
UNFIT_SECONDS = 60.0
"""How long runs are started cold after their code turned out not to be forkable."""
POLL_SECONDS = 0.2
INTERRUPT_GRACE_SECONDS = 10.0
"""How long interrupted runs may take to finish before they are killed."""
EXIT_GRACE_SECONDS = 5.0
"""How long zygotes are given to exit, so that this process is the one that reaps them."""
TAKEOVER_TIMEOUT_SECONDS = 50.0
"""Longer than it takes to detect that the previous run host hangs."""


class RunHost:
    """Serves launchers on its socket until it is asked to stop or no launcher and no run needs it."""

    def __init__(self, folder: Path, lock: IO[str], *, run_seconds: float, idle_seconds: float) -> None:
        """Prepare to serve.

        Args:
            folder: the launcher's folder.
            lock: the file that holds the folder's lock.
            run_seconds: how long runs may take to finish after a request to stop.
            idle_seconds: how long it waits for a launcher when no run and no launcher is left; infinite if another
                process decides when it stops.
        """
        self._folder = folder
        self._lock = lock
        self._run_seconds = run_seconds
        self._idle_seconds = idle_seconds
        self._zygotes: dict[str, ZygoteClient] = {}
        self._unfit: dict[str, tuple[float, str]] = {}
        self._runs: set[int] = set()
        self._launchers: set[asyncio.StreamWriter] = set()
        self._pending_requests = 0
        self._stop_at: float | None = None

    async def serve(self, listener: socket.socket, *, preload: LaunchRequest | None) -> None:
        """Serve launchers until it is time to stop, then let the runs finish.

        Args:
            listener: the listening socket.
            preload: a request like those to expect, whose code is loaded at once; no run is started for it.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_within, self._run_seconds)
        if preload is not None:
            self._get_zygote(preload)
        server = await asyncio.start_unix_server(self._serve_launcher, sock=listener, limit=MAX_LINE_BYTES)
        last_needed_at = time.monotonic()
        while self._stop_at is None:
            # Check for need first: on a busy machine much more time can have passed than this loop slept.
            if self._launchers or self._runs:
                last_needed_at = time.monotonic()
            elif time.monotonic() > last_needed_at + self._idle_seconds:
                self._stop_within(float("inf"))
            await asyncio.sleep(POLL_SECONDS)
        server.close()
        (self._folder / SOCKET_FILE).unlink(missing_ok=True)
        self._lock.close()
        while self._pending_requests:
            await asyncio.sleep(POLL_SECONDS)
        for zygote in self._zygotes.values():
            zygote.retire()
        await self._finish_runs()
        exit_by = time.monotonic() + EXIT_GRACE_SECONDS
        for launcher in self._launchers:
            launcher.close()
        while (self._launchers or has_children()) and time.monotonic() < exit_by:
            await asyncio.sleep(POLL_SECONDS)

    def _stop_within(self, seconds: float) -> None:
        self._stop_at = time.monotonic() + seconds

    async def _finish_runs(self) -> None:
        await self._wait_for_runs()
        for pid in self._runs:
            # Signal the run's own process only: Dagster forwards the signal to the processes it started.
            os.kill(pid, signal.SIGINT)
        await self._wait_for_runs(grace_seconds=INTERRUPT_GRACE_SECONDS)
        for pid in self._runs:
            os.killpg(pid, signal.SIGKILL)
        await self._wait_for_runs(grace_seconds=float("inf"))

    async def _wait_for_runs(self, *, grace_seconds: float = 0.0) -> None:
        """Return when no run is left, or `grace_seconds` after the time to stop."""
        assert self._stop_at is not None, "runs are only waited for during shutdown"
        while self._runs and time.monotonic() < self._stop_at + grace_seconds:
            await asyncio.sleep(POLL_SECONDS)

    async def _serve_launcher(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one launcher; this run host is needed as long as it stays connected."""
        self._launchers.add(writer)
        try:
            while line := await _read_line(reader):
                response = await self._handle(json.loads(line))
                # If the launcher has disconnected, the run that it requested continues.
                with suppress(ConnectionError):
                    writer.write(json.dumps(asdict(response)).encode() + b"\n")
                    await writer.drain()
        finally:
            self._launchers.discard(writer)
            writer.close()

    async def _handle(self, message: dict[str, Any]) -> LaunchResponse:
        if message == PING:
            return LaunchResponse()
        try:
            request = None if message == RETIRE else LaunchRequest.from_json(message)
        except (KeyError, TypeError):
            print_line("A launcher of another version connected. This run host retires.")
            request = None
        if request is None:
            # The launcher starts the next run host; this one only lets its current runs finish.
            self._stop_within(float("inf"))
        if request is None or self._stop_at is not None:
            return SHUTTING_DOWN
        self._pending_requests += 1
        try:
            return await self._start(request)
        finally:
            self._pending_requests -= 1

    async def _start(self, request: LaunchRequest) -> LaunchResponse:
        pid, cold_reason = await self._start_warm(request)
        if pid is None:
            try:
                pid = start_cold(request, str(self._folder))
            except OSError as error:
                return LaunchResponse(refused=f"no process could be started: {error}")
        if is_own_child(pid):
            self._runs.add(pid)
        if cold_reason is not None:
            print_line(f"Cold start of run {request.run_id}: {cold_reason}.")
        return LaunchResponse(pid=pid, cold=cold_reason)

    async def _start_warm(self, request: LaunchRequest) -> tuple[int | None, str | None]:
        """Return the pid of a worker forked from a zygote, or the reason why there is none."""
        if request.code.module is None:
            return None, "its code is not a module, and only modules are kept loaded"
        found_at, reason = self._unfit.get(request.key, (0.0, ""))
        if reason and time.monotonic() < found_at + UNFIT_SECONDS:
            return None, reason
        for _ in range(MAX_RELOADS):
            try:
                zygote = self._get_zygote(request)
            except OSError as error:
                return None, f"the zygote could not be started: {error}"
            try:
                return await zygote.fork(request), None
            except StaleCode as error:
                reason = str(error)
                self._drop(zygote)
                print_line(f"{reason}. Reloading the code.")
            except (ZygoteUnfit, ZygoteLost) as error:
                reason = str(error)
                self._drop(zygote)
                if zygote.was_ready:
                    # This run does not wait for the next zygote, but the next run should find it loaded.
                    self._get_zygote(request)
                else:
                    self._unfit[request.key] = time.monotonic(), reason
                break
        return None, reason

    def _get_zygote(self, request: LaunchRequest) -> ZygoteClient:
        """Return the zygote for the request, starting it if needed; if there are too many, the least recent retires."""
        zygote = self._zygotes.pop(request.key, None) or ZygoteClient(request, str(self._folder))
        self._zygotes[request.key] = zygote
        while len(self._zygotes) > MAX_ZYGOTES:
            self._zygotes.pop(next(iter(self._zygotes))).retire()
        return zygote

    def _drop(self, zygote: ZygoteClient) -> None:
        if self._zygotes.get(zygote.key) is zygote:
            del self._zygotes[zygote.key]
        zygote.retire()

    def _reap(self) -> None:
        """Reap every exited child: runs, zygotes, and orphans of exited runs."""
        self._runs.difference_update(reap_children())


async def _read_line(launcher: asyncio.StreamReader) -> bytes:
    """Return the launcher's next line, or nothing if it has disconnected."""
    with suppress(ConnectionError):
        return await launcher.readline()
    return b""


def print_line(text: str) -> None:
    """Print one line at once. A line that cannot be written is lost: no run may wait for space on a disk."""
    with suppress(OSError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def try_lock(folder: Path) -> IO[str] | None:
    """Take the lock that the folder's one run host holds; return the file that holds it, or None if it is taken."""
    file = (folder / LOCK_FILE).open("w")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def listen(folder: Path) -> socket.socket:
    """Listen in the folder. Only the process that holds the folder's lock may call this."""
    (folder / SOCKET_FILE).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with short_address(folder) as address:
        listener.bind(address)
    listener.listen(LISTEN_BACKLOG)
    return listener


def take_over(folder: Path, *, keep: bool) -> IO[str] | None:
    """Return the folder's lock, or None if another run host is serving and `keep` is false.

    With `keep`, a run host that holds the lock is asked to retire.
    """
    deadline = time.monotonic() + TAKEOVER_TIMEOUT_SECONDS
    while (lock := try_lock(folder)) is None:
        if not keep and is_serving(folder):
            return None
        if time.monotonic() > deadline:
            sys.exit(f"Another run host holds the lock of {folder}, and it neither serves nor exits. Kill it.")
        with suppress(FileNotFoundError, ConnectionError, TimeoutError, BlockingIOError), connect(folder) as connection:
            if keep:
                request_or_kill(connection, RETIRE)
        time.sleep(POLL_SECONDS)
    return lock


def main() -> None:
    """Serve the folder given."""
    parser = argparse.ArgumentParser(prog="python -m seedtrust_ops.launcher.run_host", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the launcher's folder")
    parser.add_argument("--keep", action="store_true", help="stay up when idle; replace a run host without this option")
    parser.add_argument("--detach", action="store_true", help="return once it serves; it continues without a parent")
    parser.add_argument("--run-seconds", type=float, default=45.0, help="time for runs to finish after a stop request")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="time until it exits when nobody needs it")
    parser.add_argument("--warm", metavar="MODULE", help="a code location's module to load at once")
    options = parser.parse_args()
    make_private_folder(options.folder)
    lock = take_over(options.folder, keep=options.keep)
    if lock is None:
        return
    listener = listen(options.folder)
    if options.detach:
        if os.fork():
            os._exit(0)
        os.setsid()
        # The kernel reports the pid that called listen() last to launchers, and that process has exited.
        listener.listen(LISTEN_BACKLOG)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    idle_seconds = float("inf") if options.keep else options.idle_seconds
    host = RunHost(options.folder, lock, run_seconds=options.run_seconds, idle_seconds=idle_seconds)
    asyncio.run(host.serve(listener, preload=_expected_request(options.warm) if options.warm else None))


def _expected_request(module: str) -> LaunchRequest:
    """Return a request like those of the launchers beside this process: same Python, environment and directory."""
    # This import is larger than the rest of this process, and only a kept run host needs it.
    from seedtrust_ops.config import environment_for_child

    code = CodeToLoad(python=sys.executable, module=module, code_folder=os.getcwd())
    return LaunchRequest("", "", code, environment_for_child({}), os.getcwd())


if __name__ == "__main__":
    main()
