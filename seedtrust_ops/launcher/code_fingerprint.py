"""Detects whether the code that this process has loaded still matches the files on disk.

It compares files, not a deployment's version: any change counts (an edit, a pull, an installation), and a restart of
the daemon alone changes nothing.
See docs/decisions/warm-launcher.md.
"""

import os
import sys
from pathlib import Path
from typing import Self

CLOCK_TICK_NANOSECONDS = 10_000_000
"""The kernel stamps files with the time of its last clock tick, which can be this much earlier than now."""
_FileSignature = tuple[int, int, int]
"""A file's inode, size in bytes and ctime in nanoseconds. Unlike the modification time, nobody can set the ctime."""


class CodeFingerprint:
    """The state, at load time, of the files of all loaded modules, every file of one package, and `.env`."""

    def __init__(self, package: Path | None, environment_file: Path, files: dict[str, _FileSignature | None]) -> None:
        self._package = package
        self._environment_file = environment_file
        self._files = files

    @classmethod
    def of_current_process(cls, module: str, folder: Path) -> Self:
        """Record the files of everything that is loaded now.

        Args:
            module: the code location's module; every file in its top-level package counts, loaded or not.
            folder: where Dagster looks for `.env`.
        """
        top = getattr(sys.modules[module.partition(".")[0]], "__path__", None)
        package = None if top is None else Path(next(iter(top)))
        loaded = [str(file) for one in list(sys.modules.values()) if (file := getattr(one, "__file__", None))]
        environment_file = folder / ".env"
        files = {file: _read_signature(file) for file in [*loaded, str(environment_file)]}
        return cls(package, environment_file, files | _read_tree(package))

    def find_change_since(self, nanoseconds: int) -> str | None:
        """Return a file that had changed at or after this UNIX time when it was recorded, or None."""
        since = nanoseconds - CLOCK_TICK_NANOSECONDS
        return next((file for file, signature in self._files.items() if signature and signature[2] >= since), None)

    def find_change(self) -> str | None:
        """Return a file that has changed since it was recorded or is new in the package; None if there is none."""
        now = _read_tree(self._package)
        for file, signature in self._files.items():
            if (now.pop(file) if file in now else _read_signature(file)) != signature:
                return file
        return next(iter(now), None)


def _read_tree(package: Path | None) -> dict[str, _FileSignature | None]:
    if package is None:
        return {}
    found = {}
    for folder, folders, files in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            path = f"{folder}/{name}"
            found[path] = _read_signature(path)
    return found


def _read_signature(file: str) -> _FileSignature | None:
    try:
        status = os.stat(file)
    except OSError:
        # The file was deleted, or it never was a file (a module in a zip archive).
        return None
    return status.st_ino, status.st_size, status.st_ctime_ns
