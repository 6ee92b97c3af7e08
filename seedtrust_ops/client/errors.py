"""What can go wrong between an application and the operations server, each as a sentence and a class of its own.

What a batch or a report is refused for is the domain's: `BatchNotQueueable`, `UnknownBatch`, `UnusableRequest`.
"""

from collections.abc import Sequence

from seedtrust_ops.errors import SeedTrustError, TransientError


class OperationsUnreachable(TransientError):
    """The operations server gave no answer that can be read; `nothing_left` where not even the question reached it."""

    def __init__(self, sentence: str, *, nothing_left: bool) -> None:
        super().__init__(sentence)
        self.nothing_left = nothing_left


class LaunchUncertain(TransientError):
    """A job may have been launched or not: the answer was lost. Launching with the same `request_id` finds out."""

    def __init__(self, sentence: str, request_id: str) -> None:
        super().__init__(sentence)
        self.request_id = request_id


class OperationsRefused(SeedTrustError):
    """The operations server answered, and would not do it."""


class UnknownJob(SeedTrustError):
    """No job has this name, or the server has not loaded it."""


class WrongConfig(SeedTrustError):
    """The job does not take this config; `problems` has a sentence for each thing that is wrong."""

    def __init__(self, sentence: str, problems: Sequence[str]) -> None:
        super().__init__(sentence)
        self.problems = tuple(problems)


class UnknownRun(SeedTrustError):
    """Dagster has no run with this id."""


class RunIsStarting(TransientError):
    """The run has left the queue and not begun, and was not revoked: Dagster cancels none in that moment."""


class RunIsOver(SeedTrustError):
    """The run has ended, so there is nothing left to revoke; `status` is how."""

    def __init__(self, sentence: str, status: str) -> None:
        super().__init__(sentence)
        self.status = status
