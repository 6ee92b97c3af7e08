"""What launchers ask of the run host, and what it answers: one JSON object a line each way, over a unix socket.

How they find each other is in `run_host_folder`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

LONGEST_LINE = 16 * 2**20
"""Bytes; an environment and a run's arguments are some thousands."""
PASSING_VARIABLES = frozenset({"_", "SHLVL", "PWD", "OLDPWD", "TERM", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"})
"""Variables that differ between shells and steps without any meaning for the code that is loaded."""

ALIVE = {"alive": True}
"""Asks only for an answer, whatever it is."""
RETIRE = {"retire": True}
"""Asks a run host to let its runs go on to their ends, and start no other."""


@dataclass(frozen=True)
class CodeToLoad:
    """What a zygote must have loaded to be of use for a run."""

    python: str
    module: str | None
    """None where the code is not a module, and so can't be kept loaded."""
    code_folder: str | None
    """The folder that Dagster loads the module from."""

    def key(self, environment: Mapping[str, str], working_directory: str) -> str:
        """Return what two runs have in common exactly when one process can serve both: code may read anything of it."""
        variables = {name: value for name, value in environment.items() if name not in PASSING_VARIABLES}
        text = json.dumps([asdict(self), variables, working_directory], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class LaunchOrder:
    """One run to start, with the environment and the working directory of whoever launches it."""

    run_id: str
    arguments: str
    """The serialized arguments of `dagster api execute_run`."""
    code: CodeToLoad
    environment: dict[str, str]
    working_directory: str

    @property
    def key(self) -> str:
        """What a zygote for this run must be keyed by."""
        return self.code.key(self.environment, self.working_directory)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return the order that a launcher sent."""
        return cls(**fields | {"code": CodeToLoad(**fields["code"])})


@dataclass(frozen=True)
class Answer:
    """What became of an order: the worker's pid, or a sentence that says why it has none; empty without an order."""

    pid: int | None = None
    cold: str | None = None
    """Why the worker was not forked from a warm process, where it was not."""
    refused: str | None = None
