"""Finds the sandbox that this user's `seedtrust-ops dev` is running, for a shell in which nothing is configured.

All or nothing: a process that has one variable of a database, the bank, the mail server or the bucket gets nothing from
it, and any other gets all of its variables, so that no real batch is ever booked against the sandbox bank. Who starts
and announces a sandbox is in `sandbox`.
See docs/decisions/running-sandbox.md.
"""

import fcntl
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path("~/.seedtrust/running")
"""Where it is announced. Only its user may enter the folder: a user who could write it could redirect payments."""
FILE = "sandbox.json"
_NAMES = frozenset({"SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL", "REPORTS_BUCKET"})
_PREFIXES = ("HUNTINGTON_", "SMTP_")
_OTHERS = 0o077

_logger = logging.getLogger(__name__)


def is_decisive(variable: str) -> bool:
    """Return whether a process in which this variable is set uses no sandbox that it was not told to use."""
    return variable in _NAMES or variable.startswith(_PREFIXES)


def is_unconfigured(environment: Mapping[str, str]) -> bool:
    """Return whether no decisive variable is set; as for all settings, an empty one counts as not set."""
    return not any(value and is_decisive(name) for name, value in environment.items())


def find_running_sandbox(environment: Mapping[str, str], folder: Path = FOLDER) -> dict[str, str]:
    """Return the variables of the sandbox that is announced in `folder`; none if there is none or it must not be used.

    It is used if nothing is configured in `environment`, if nobody but this user can have written the announcement, and
    if the process that wrote it is still running: that process holds a lock on the file.
    """
    if not is_unconfigured(environment):
        return {}
    try:
        directory = os.open(folder.expanduser(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, RuntimeError):
        # There is none, or no home folder.
        return {}
    try:
        # A named pipe would block without O_NONBLOCK.
        descriptor = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return {}
    else:
        with os.fdopen(descriptor) as file:
            if not (_is_private(directory, stat.S_ISDIR) and _is_private(descriptor, stat.S_ISREG)):
                _logger.warning(
                    "%s is ignored, because other users could have written it. Remove the folder, and start `make dev` "
                    "again.",
                    folder.expanduser() / FILE,
                )
                return {}
            if not _is_locked(descriptor):
                return {}
            variables: dict[str, str] = json.load(file)
            return variables
    finally:
        os.close(directory)


def _is_private(descriptor: int, is_expected_type: Callable[[int], bool]) -> bool:
    found = os.fstat(descriptor)
    return is_expected_type(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
