"""Announces a running sandbox to the other shells of its user, for as long as this process runs.

Which processes use it is decided in `config/running_sandbox`.
See docs/decisions/running-sandbox.md.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from seedtrust_ops.config.running_sandbox import FILE, FOLDER, find_running_sandbox
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.launcher.private_folder import make_private_folder


class SandboxAlreadyRunning(SeedTrustError):
    """This user is running a sandbox that other shells use."""


def require_no_other_sandbox(database_url: str, folder: Path = FOLDER) -> None:
    """Raise `SandboxAlreadyRunning` if this user is running a sandbox on the same database."""
    if find_running_sandbox({}, folder).get("SEEDTRUST_DATABASE_URL") == database_url:
        raise SandboxAlreadyRunning(
            "`seedtrust-ops dev` is already running for this user. A second one would send from the same database to "
            "another bank. Stop that one first."
        )


@contextmanager
def announce(variables: Mapping[str, str], folder: Path = FOLDER) -> Iterator[None]:
    """Let processes in which nothing is configured use `variables`, until the block or this process ends.

    What was announced before is replaced: the last sandbox that was started is the one that is found.

    Raises:
        ConfigurationError: if `folder` belongs to another user.
    """
    folder = folder.expanduser()
    make_private_folder(folder)
    # mkstemp creates files that only their owner may read.
    descriptor, new = tempfile.mkstemp(dir=folder, prefix="new-")
    with os.fdopen(descriptor, "w") as file:
        # Readers take it for abandoned unless it is locked, and a lock ends with its process.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        json.dump(dict(variables), file)
        file.flush()
        path = Path(new).replace(folder / FILE)
        try:
            yield
        finally:
            # Not another sandbox's, started since.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                path.unlink()
