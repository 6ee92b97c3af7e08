"""Tells whether the code that this process has loaded is still what lies on the disk.

The answer is about files, not about a deployment's name: whatever changes them, an edit, a pull or an installation,
is noticed, and a daemon that is merely started again changes nothing.
"""

import os
import sys
from pathlib import Path
from typing import Self

TICK_NANOSECONDS = 10_000_000
"""Files are dated by the kernel's last tick of the clock, which may be so long ago."""
_Trace = tuple[int, int, int]
"""A file's inode, size and time of change (nanoseconds). Unlike the time of modification nobody can set that one."""


class LoadedCode:
    """The files of all loaded modules, every file of one package, and `.env`, as they were."""

    def __init__(self, package: Path | None, environment_file: Path, files: dict[str, _Trace | None]) -> None:
        self._package = package
        self._environment_file = environment_file
        self._files = files

    @classmethod
    def of_this_process(cls, module: str, folder: Path) -> Self:
        """Take down what is loaded now.

        Args:
            module: the code location's module; all that lies in its top-level package counts, loaded or not.
            folder: where Dagster looks for `.env`.
        """
        top = getattr(sys.modules[module.partition(".")[0]], "__path__", None)
        package = None if top is None else Path(next(iter(top)))
        loaded = [str(file) for one in list(sys.modules.values()) if (file := getattr(one, "__file__", None))]
        environment_file = folder / ".env"
        files = {file: _trace(file) for file in [*loaded, str(environment_file)]}
        return cls(package, environment_file, files | _tree(package))

    def changed_since(self, nanoseconds: int) -> str | None:
        """Return a file that changed at or after that time (UNIX time), None where none did."""
        since = nanoseconds - TICK_NANOSECONDS
        return next((file for file, trace in self._files.items() if trace and trace[2] >= since), None)

    def changed(self) -> str | None:
        """Return a file that is no longer as it was, or is new in the package; None where all is as it was."""
        now = _tree(self._package)
        for file, trace in self._files.items():
            if (now.pop(file) if file in now else _trace(file)) != trace:
                return file
        return next(iter(now), None)


def _tree(package: Path | None) -> dict[str, _Trace | None]:
    if package is None:
        return {}
    found = {}
    for folder, folders, files in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            path = f"{folder}/{name}"
            found[path] = _trace(path)
    return found


def _trace(file: str) -> _Trace | None:
    try:
        status = os.stat(file)
    except OSError:
        # It is gone, or was never a file (modules of zip archives).
        return None
    return status.st_ino, status.st_size, status.st_ctime_ns
