"""What can go wrong between an application and the operations server, each as a sentence and a class of its own.

What a batch or a report is refused for is the domain's: `BatchNotQueueable`, `UnknownBatch`, `UnusableRequest`.
"""

from collections.abc import Sequence

from seedtrust_ops.errors import OperationsError, PassingTrouble


class OperationsUnreachable(PassingTrouble):
    """The operations server gave no answer that can be read; `nothing_left` where not even the question reached it."""

    def __init__(self, sentence: str, *, nothing_left: bool) -> None:
        super().__init__(sentence)
        self.nothing_left = nothing_left


class LaunchInDoubt(PassingTrouble):
    """A job may have been launched or not: the answer was lost. Launching with the same `request_id` finds out."""

    def __init__(self, sentence: str, request_id: str) -> None:
        super().__init__(sentence)
        self.request_id = request_id


class OperationsRefused(OperationsError):
    """The operations server answered, and would not do it."""


class UnknownJob(OperationsError):
    """No job has this name, or the server has not loaded it."""


class WrongConfig(OperationsError):
    """The job does not take this config; `problems` has a sentence for each thing that is wrong."""

    def __init__(self, sentence: str, problems: Sequence[str]) -> None:
        super().__init__(sentence)
        self.problems = tuple(problems)


class UnknownRun(OperationsError):
    """Dagster has no run with this id."""


class RunIsStarting(PassingTrouble):
    """The run has left the queue and not begun, and was not revoked: Dagster cancels none in that moment."""


class RunIsOver(OperationsError):
    """The run has ended, so there is nothing left to revoke; `status` is how."""

    def __init__(self, sentence: str, status: str) -> None:
        super().__init__(sentence)
        self.status = status
