"""What SeedTrust's applications call: queue a batch, ask for a report, launch a job, see how a run stands, revoke it.

It is light (no Dagster, no pandas) and reads no environment; docs/client.md shows it in FastAPI and in Flask.
"""

from seedtrust_ops.client.async_client import AsyncOpsClient
from seedtrust_ops.client.client import OpsClient
from seedtrust_ops.client.errors import (
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    RunIsOver,
    RunIsStarting,
    UnknownJob,
    UnknownRun,
    WrongConfig,
)
from seedtrust_ops.client.runs import Progress, RunState, RunStatus
from seedtrust_ops.domain.reports.parameters import UnusableRequest
from seedtrust_ops.domain.reports.submission import request_report
from seedtrust_ops.domain.transfers.batch_claim import UnknownBatch
from seedtrust_ops.domain.transfers.batch_queue import BatchInQueue, BatchNotQueueable, queue_batch
from seedtrust_ops.errors import SeedTrustError, TransientError

__all__ = [
    "AsyncOpsClient",
    "BatchInQueue",
    "BatchNotQueueable",
    "LaunchUncertain",
    "OperationsRefused",
    "OperationsUnreachable",
    "OpsClient",
    "Progress",
    "RunIsOver",
    "RunIsStarting",
    "RunState",
    "RunStatus",
    "SeedTrustError",
    "TransientError",
    "UnknownBatch",
    "UnknownJob",
    "UnknownRun",
    "UnusableRequest",
    "WrongConfig",
    "queue_batch",
    "request_report",
]
