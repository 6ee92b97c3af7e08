"""The run host's side of one zygote: starts it, waits until it is fit, and asks it for forks one after the other.

Which zygotes there are, and what happens where one can't serve, is the run host's.
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

from seedtrust_ops.launcher.forking import INTERRUPTS
from seedtrust_ops.launcher.wire_protocol import LONGEST_LINE, LaunchOrder

LOAD_SECONDS = 60.0
"""How long loading may take before runs are started cold."""
FORK_SECONDS = 30.0
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy's libraries start a thread a core when they are loaded, unless told not to."""


class Stale(Exception):
    """The code on the disk is not what the zygote has loaded; nothing was started."""


class Unfit(Exception):
    """The zygote can't be forked, or not now; nothing was started."""


class Lost(Exception):
    """The zygote died or fell silent; whether it had forked is not known."""


class WarmProcess:
    """One zygote."""

    def __init__(self, order: LaunchOrder, folder: str) -> None:
        """Start it with the order's environment and in its directory, for any order with the same key."""
        assert order.code.module is not None, "only modules are kept loaded"
        self.key = order.key
        self._folder = folder
        ours, theirs = socket.socketpair()
        # Taken here, because the zygote's own first statement comes after it has loaded most of its code.
        began = time.time_ns()
        command = ["seedtrust_ops.launcher.zygote", "--channel", str(theirs.fileno()), "--began", str(began)]
        command += ["--module", order.code.module]
        if order.code.code_folder is not None:
            command += ["--code-folder", order.code.code_folder]
        with theirs:
            self.pid = _start(order, command, variables=ONE_THREAD, pass_fds=(theirs.fileno(),))
        self._ours = ours
        self._stale: Stale | None = None
        self._one_at_a_time = asyncio.Lock()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ready = asyncio.ensure_future(self._get_ready())

    @property
    def was_ready(self) -> bool:
        """Whether it has loaded its code and was fit to be forked."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    async def fork(self, order: LaunchOrder) -> int:
        """Return the pid of a new worker for the order.

        Raises:
            Stale, Unfit, Lost: as they say.
        """
        await asyncio.shield(self._ready)
        answer = await self._ask(
            {
                "arguments": order.arguments,
                "environment": order.environment,
                "working_directory": order.working_directory,
                "folder": self._folder,
            }
        )
        return int(answer["pid"])

    def retire(self) -> None:
        """Let it end; its runs go on."""
        with suppress(OSError):  # the zygote hung up first
            self._ours.shutdown(socket.SHUT_RDWR)
        if self._connection is not None:
            self._connection[1].close()

    async def _get_ready(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._ours, limit=LONGEST_LINE)
        self._connection = reader, writer
        await self._heard(LOAD_SECONDS)

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._connection is not None, "it is ready"
        async with self._one_at_a_time:
            if self._stale is not None:
                raise self._stale
            try:
                self._connection[1].write(json.dumps(message).encode() + b"\n")
                await self._connection[1].drain()
            except ConnectionError as error:
                raise Lost("the warm process is gone") from error
            return await self._heard(FORK_SECONDS)

    async def _heard(self, seconds: float) -> dict[str, Any]:
        assert self._connection is not None, "it is ready"
        try:
            line = await asyncio.wait_for(self._connection[0].readline(), seconds)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise Lost(f"the warm process did not answer within {seconds:g} s, and was ended") from None
        except ConnectionError as error:
            raise Lost("the warm process died") from error
        if not line:
            raise Lost("the warm process died")
        answer: dict[str, Any] = json.loads(line)
        if "stale" in answer:
            self._stale = Stale(answer["stale"])
            raise self._stale
        if reason := answer.get("unfit") or answer.get("failed"):
            raise Unfit(reason)
        return answer


def start_cold(order: LaunchOrder, folder: str) -> int:
    """Start a worker for the order as a process of its own; return its pid.

    Raises:
        OSError: when that is not possible.
    """
    command = ["seedtrust_ops.launcher.run_worker", "--folder", folder, order.arguments]
    # Blocked signals stay blocked in the new program, until it is ready for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        return _start(order, command, process_group=0)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


def _start(
    order: LaunchOrder,
    command: Sequence[str],
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    pass_fds: Sequence[int] = (),
    process_group: int | None = None,
) -> int:
    process = subprocess.Popen(  # noqa: S603
        [order.code.python, "-m", *command],
        env={**order.environment, **variables},
        cwd=order.working_directory,
        stdin=subprocess.DEVNULL,
        pass_fds=pass_fds,
        process_group=process_group,
    )
    # The run host collects all its children; this object must not wait for one by a pid that may be another's by then.
    process.returncode = 0
    return process.pid
