"""Starts workers for the run host: warm, as forks of a zygote that it starts and talks to, or cold, as new processes.

Which zygotes exist, and what happens if one cannot serve, is in `run_host`.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from seedtrust_ops.launcher.forking import STOP_SIGNALS
from seedtrust_ops.launcher.wire_protocol import MAX_LINE_BYTES, LaunchRequest

LOAD_TIMEOUT_SECONDS = 60.0
"""How long loading may take before runs are started cold."""
FORK_TIMEOUT_SECONDS = 30.0
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""By default, numpy's libraries start one thread per core when they are loaded."""


class StaleCode(Exception):
    """The code on disk differs from what the zygote has loaded; nothing was started."""


class ZygoteUnfit(Exception):
    """The zygote cannot be forked, or not at the moment; nothing was started."""


class ZygoteLost(Exception):
    """The zygote crashed or stopped responding; whether it had forked is unknown."""


class ZygoteClient:
    """Starts one zygote and talks to it."""

    def __init__(self, request: LaunchRequest, folder: str) -> None:
        """Start a zygote with the request's environment and directory, for every request with the same key."""
        assert request.code.module is not None, "only modules are kept loaded"
        self.key = request.key
        self._folder = folder
        own_end, zygote_end = socket.socketpair()
        # Taken here, because the zygote's own first statement runs after most of its code is loaded.
        started_ns = time.time_ns()
        command = ["seedtrust_ops.launcher.zygote", "--channel", str(zygote_end.fileno())]
        command += ["--started-ns", str(started_ns), "--module", request.code.module]
        if request.code.code_folder is not None:
            command += ["--code-folder", request.code.code_folder]
        with zygote_end:
            self.pid = _start(request, command, variables=SINGLE_THREADED, pass_fds=(zygote_end.fileno(),))
        self._socket = own_end
        self._stale: StaleCode | None = None
        self._request_lock = asyncio.Lock()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ready = asyncio.ensure_future(self._wait_until_ready())

    @property
    def was_ready(self) -> bool:
        """Whether the zygote had loaded its code and could be forked."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    async def fork(self, request: LaunchRequest) -> int:
        """Return the pid of a new worker for the request.

        Raises:
            StaleCode: if the code changed on disk since the zygote loaded it.
            ZygoteUnfit: if the zygote cannot be forked.
            ZygoteLost: if the zygote crashed or did not respond.
        """
        await asyncio.shield(self._ready)
        response = await self._send(
            {
                "arguments": request.arguments,
                "environment": request.environment,
                "working_directory": request.working_directory,
                "folder": self._folder,
            }
        )
        return int(response["pid"])

    def retire(self) -> None:
        """Let the zygote exit; its runs continue."""
        with suppress(OSError):  # the zygote disconnected first
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._connection is not None:
            self._connection[1].close()

    async def _wait_until_ready(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket, limit=MAX_LINE_BYTES)
        self._connection = reader, writer
        await self._read_response(LOAD_TIMEOUT_SECONDS)

    async def _send(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._connection is not None, "the zygote is ready"
        async with self._request_lock:
            if self._stale is not None:
                raise self._stale
            try:
                self._connection[1].write(json.dumps(message).encode() + b"\n")
                await self._connection[1].drain()
            except ConnectionError as error:
                raise ZygoteLost("the zygote crashed") from error
            return await self._read_response(FORK_TIMEOUT_SECONDS)

    async def _read_response(self, seconds: float) -> dict[str, Any]:
        assert self._connection is not None, "the zygote is ready"
        try:
            line = await asyncio.wait_for(self._connection[0].readline(), seconds)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise ZygoteLost(f"the zygote did not respond within {seconds:g} s and was killed") from None
        except ConnectionError as error:
            raise ZygoteLost("the zygote crashed") from error
        if not line:
            raise ZygoteLost("the zygote crashed")
        response: dict[str, Any] = json.loads(line)
        if "stale" in response:
            self._stale = StaleCode(response["stale"])
            raise self._stale
        if reason := response.get("unfit") or response.get("failed"):
            raise ZygoteUnfit(reason)
        return response


def start_cold(request: LaunchRequest, folder: str) -> int:
    """Start a worker for the request as a new process (a cold start); return its pid.

    Raises:
        OSError: if no process can be started.
    """
    command = ["seedtrust_ops.launcher.run_worker", "--folder", folder, request.arguments]
    # Blocked signals stay blocked in the new program until it is ready for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return _start(request, command, process_group=0)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _start(
    request: LaunchRequest,
    command: Sequence[str],
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    pass_fds: Sequence[int] = (),
    process_group: int | None = None,
) -> int:
    process = subprocess.Popen(  # noqa: S603
        [request.code.python, "-m", *command],
        env={**request.environment, **variables},
        cwd=request.working_directory,
        stdin=subprocess.DEVNULL,
        pass_fds=pass_fds,
        process_group=process_group,
    )
    # The run host reaps all its children; this object must not wait for a pid that may have been reused by then.
    process.returncode = 0
    return process.pid
