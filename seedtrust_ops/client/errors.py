"""The errors between an application and Dagster's web server; every message may be shown to people.

The errors of batches and reports are in the domain: `BatchNotQueueable`, `UnknownBatch`, `InvalidReportRequest`.
"""

from collections.abc import Sequence

from seedtrust_ops.errors import SeedTrustError, TransientError


class OperationsUnreachable(TransientError):
    """Dagster's web server gave no readable response; `not_sent` means that the request did not even reach it."""

    def __init__(self, message: str, *, not_sent: bool) -> None:
        super().__init__(message)
        self.not_sent = not_sent


class LaunchUncertain(TransientError):
    """The response was lost, so the job may or may not have been launched. Launch again with the same `request_id`."""

    def __init__(self, message: str, request_id: str) -> None:
        super().__init__(message)
        self.request_id = request_id


class OperationsRefused(SeedTrustError):
    """Dagster's web server, or a proxy in front of it, rejected the request."""


class UnknownJob(SeedTrustError):
    """No job has this name."""


class InvalidConfig(SeedTrustError):
    """The config does not match the job; `problems` has one message per error."""

    def __init__(self, message: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class UnknownRun(SeedTrustError):
    """Dagster has no run with this ID."""


class RunStarting(TransientError):
    """The run was not revoked: it has left the queue but not started, and Dagster cancels no run at that point."""


class RunAlreadyFinished(SeedTrustError):
    """The run has already finished, so it was not revoked; `status` is its status."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status
