"""Folders that only this user may enter, for sockets: anyone who reaches one can run code as the user who listens.

It knows nothing about what listens. The run host's socket and the code server's are in such folders.
"""

import os
import stat
from pathlib import Path

from seedtrust_ops.errors import ConfigurationError

OWNER_ONLY = 0o700


def make_private_folder(folder: Path) -> None:
    """Create the folder if it is missing, and close it to other users.

    Raises:
        ConfigurationError: if it is a link, or belongs to another user, who could open it again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The mode from the start: a process that enters a folder while it is open may stay in it.
    try:
        folder.mkdir(mode=OWNER_ONLY)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{folder} must be a folder that belongs to the user who runs this process, because its sockets accept "
                "any code to run. Remove it, and check who created it."
            ) from None
        folder.chmod(OWNER_ONLY)
