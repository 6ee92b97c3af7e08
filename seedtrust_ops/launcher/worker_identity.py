"""Which process works on a run, told so that no other process can be taken for it, on this machine or another.

It only names, looks and signals; what a worker does is in `run_worker`.
"""

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

WORKER_TAG = "seedtrust/run_worker"
"""The run's tag that holds its worker."""
START_TIME_FIELD = 19
"""Where the kernel's `/proc/PID/stat` has the start time, counted after the name, which may hold spaces (proc(5))."""


@dataclass(frozen=True)
class WorkerProcess:
    """A process: its host, its pid, and when it was started, in the kernel's ticks since a boot."""

    host: str
    pid: int
    boot: str
    started: int

    @classmethod
    def this_one(cls) -> Self:
        """Return the calling process."""
        this = cls.with_pid(os.getpid())
        assert this is not None, "a process that runs has a start time"
        return this

    @classmethod
    def with_pid(cls, pid: int) -> Self | None:
        """Return the process of this host that has the pid now, None where none has."""
        started = _started(pid)
        return None if started is None else cls(socket.gethostname(), pid, _boot(), started)

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Self | None:
        """Return the worker that a run's tags name, None where no worker has put itself there."""
        text = tags.get(WORKER_TAG)
        return None if text is None else TypeAdapter(cls).validate_json(text)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that name this worker on its run."""
        return {WORKER_TAG: TypeAdapter(type(self)).dump_json(self).decode()}

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another host's, where this one can neither see nor signal it."""
        return self.host != socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; for a worker of this host."""
        return self.boot == _boot() and _started(self.pid) == self.started

    def interrupt(self) -> bool:
        """Send SIGINT, which Dagster raises in the op; return whether the process was there to get it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor is of one process for good, so a pid that changes hands meanwhile does no harm.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGINT)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    """Return the start time of the process, None where there is none or it is dead and only not yet collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD])
