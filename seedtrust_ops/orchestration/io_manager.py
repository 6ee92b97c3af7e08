"""Keeps what ops return in the run's memory, and on record: JobRun's `result` is read from the run's events.

No run leaves files on the disk. What is on record is plain JSON of a bounded size, whatever the op returned.
"""

from typing import Any

import dagster as dg

from seedtrust_ops.domain.json_safe import bounded, storable
from seedtrust_ops.tag_names import RETURNED


class ReturnedValues(dg.IOManager):
    """Keeps outputs in memory, and shows in the events what they were."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], object] = {}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keep `obj` for the ops of this run, and put it on record."""
        self._values[tuple(context.get_identifier())] = obj
        context.add_output_metadata({RETURNED: dg.MetadataValue.json({"value": recorded(obj)})})

    def load_input(self, context: dg.InputContext) -> object:
        """Return what an op of this run returned."""
        return self._values[tuple(context.get_identifier())]


def recorded(returned: Any) -> Any:
    """Return a returned value as JobRun's `result` has it."""
    return bounded(storable(returned))


@dg.io_manager(description="Keeps what ops return in memory, and shows it in the run's events.")
def returned_values() -> ReturnedValues:
    """Return the I/O manager of one run."""
    return ReturnedValues()
