"""The messages between launchers and the run host: one JSON object a line in each direction, over a unix socket.

How they find each other is in `host_client`. After an upgrade a launcher can meet a run host of the previous version,
so the JSON field names stay as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

MAX_LINE_BYTES = 16 * 2**20
"""An environment and a run's arguments are some thousands of bytes."""
IGNORED_VARIABLES = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TERM", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"})
"""Variables that differ between shells and steps but do not affect the loaded code."""

PING = {"alive": True}
"""Requests only a response, whatever it contains."""
RETIRE = {"retire": True}
"""Requests that a run host finish its current runs and start no others."""


@dataclass(frozen=True)
class CodeToLoad:
    """The code that a zygote must have loaded to serve a run."""

    python: str
    module: str | None
    """None if the code is not a module; such code cannot be kept loaded."""
    code_folder: str | None
    """The folder from which Dagster loads the module."""

    def key(self, environment: Mapping[str, str], working_directory: str) -> str:
        """Return a hash that two runs share exactly if one zygote can serve both: code may read all of its inputs."""
        variables = {name: value for name, value in environment.items() if name not in IGNORED_VARIABLES}
        text = json.dumps([asdict(self), variables, working_directory], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class LaunchRequest:
    """One run to start, with the environment and the working directory of its launcher."""

    run_id: str
    arguments: str
    """The serialized arguments of `dagster api execute_run`."""
    code: CodeToLoad
    environment: dict[str, str]
    working_directory: str

    @property
    def key(self) -> str:
        """The key of the zygotes that can serve this run."""
        return self.code.key(self.environment, self.working_directory)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the request that a launcher sent.

        Raises:
            KeyError, TypeError: if a launcher of another version sent it.
        """
        return cls(**fields | {"code": CodeToLoad(**fields["code"])})


@dataclass(frozen=True)
class LaunchResponse:
    """The result of a launch request; every field is None in the response to a ping."""

    pid: int | None = None
    """The worker's pid, None if no worker was started."""
    cold: str | None = None
    """Why it was a cold start, None after a warm start."""
    refused: str | None = None
    """Why no worker was started, None if one was."""
