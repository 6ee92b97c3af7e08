"""Identifies the process that works on a run, so that no other process on any machine can be mistaken for it.

It can only check and signal the process; what a worker does is in `run_worker`.
"""

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from seedtrust_ops.tag_names import WORKER_TAG

START_TIME_FIELD = 19
"""The position of the start time in `/proc/PID/stat`, counted after the name, which can contain spaces (proc(5))."""


@dataclass(frozen=True)
class WorkerIdentity:
    """A process: its host, its pid, the id of the host's boot, and its start time in clock ticks since that boot.

    The field names are stored in run tags.
    """

    host: str
    pid: int
    boot: str
    started: int

    @classmethod
    def of_current_process(cls) -> Self:
        """Return the identity of the calling process."""
        current = cls.from_pid(os.getpid())
        assert current is not None, "a running process has a start time"
        return current

    @classmethod
    def from_pid(cls, pid: int) -> Self | None:
        """Return the identity of the process of this host that has the pid now, or None if there is none."""
        started = _read_start_time(pid)
        return None if started is None else cls(socket.gethostname(), pid, _read_boot_id(), started)

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """Return the worker that a run's tags name, or None if no worker has tagged the run."""
        text = tags.get(WORKER_TAG)
        return None if text is None else TypeAdapter(cls).validate_json(text)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that name this worker on its run."""
        return {WORKER_TAG: TypeAdapter(type(self)).dump_json(self).decode()}

    @property
    def is_on_other_host(self) -> bool:
        """Whether the process runs on another host, so that this one can neither see nor signal it."""
        return self.host != socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether the process is still running; only valid for a worker of this host."""
        return self.boot == _read_boot_id() and _read_start_time(self.pid) == self.started

    def interrupt(self) -> bool:
        """Send SIGINT, which Dagster raises in the op; return whether the process was there to receive it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor refers to one process only, so it does no harm if the pid is reused meanwhile.
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


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _read_start_time(pid: int) -> int | None:
    """Return the start time of the process, or None if there is none or it has exited and was not reaped yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD])
