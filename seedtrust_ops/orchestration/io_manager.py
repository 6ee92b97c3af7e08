"""Keeps op outputs in memory and records them in the run's events, from which JobRun's `result` is read.

No run writes files. The recorded value is plain JSON of limited size, whatever the op returned.
See docs/decisions/run-execution.md.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.json_safe import limit_size, to_json_safe
from seedtrust_ops.tag_names import RETURN_VALUE_LABEL


class InMemoryIOManager(dg.IOManager):
    """Keeps outputs in memory and records their values in the run's events."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], object] = {}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keep `obj` for the other ops of this run and record its value."""
        self._values[tuple(context.get_identifier())] = obj
        context.add_output_metadata({RETURN_VALUE_LABEL: dg.MetadataValue.json({"value": to_job_run_result(obj)})})

    def load_input(self, context: dg.InputContext) -> object:
        """Return the output of an earlier op of this run."""
        return self._values[tuple(context.get_identifier())]


def to_job_run_result(value: Any) -> Any:
    """Return an op's return value as JobRun's `result` stores it: JSON-safe and limited in size."""
    return limit_size(to_json_safe(value))


@dg.io_manager(description="Keeps op outputs in memory and records their values in the run's events.")
def in_memory_io_manager() -> InMemoryIOManager:
    """Return the I/O manager for one run."""
    return InMemoryIOManager()
