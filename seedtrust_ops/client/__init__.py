"""The API for SeedTrust's web applications: queue a batch, request a report, launch a job, read a run, revoke it.

It imports neither Dagster nor pandas and reads no environment variables. docs/client.md shows it in FastAPI and Flask.
"""

from seedtrust_ops.client.client import AsyncOpsClient, OpsClient
from seedtrust_ops.client.errors import (
    InvalidConfig,
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    RunAlreadyFinished,
    RunStarting,
    UnknownJob,
    UnknownRun,
)
from seedtrust_ops.client.runs import Progress, RunState, RunStatus
from seedtrust_ops.domain.reports.authority import ReportNotAllowed
from seedtrust_ops.domain.reports.parameters import InvalidReportRequest
from seedtrust_ops.domain.reports.submission import request_report
from seedtrust_ops.domain.transfers.account_numbers import bind_account_number
from seedtrust_ops.domain.transfers.batch_lifecycle import BatchInQueue, BatchNotQueueable, UnknownBatch, queue_batch
from seedtrust_ops.errors import SeedTrustError, TransientError

__all__ = [
    "AsyncOpsClient",
    "BatchInQueue",
    "BatchNotQueueable",
    "InvalidConfig",
    "InvalidReportRequest",
    "LaunchUncertain",
    "OperationsRefused",
    "OperationsUnreachable",
    "OpsClient",
    "Progress",
    "ReportNotAllowed",
    "RunAlreadyFinished",
    "RunStarting",
    "RunState",
    "RunStatus",
    "SeedTrustError",
    "TransientError",
    "UnknownBatch",
    "UnknownJob",
    "UnknownRun",
    "bind_account_number",
    "queue_batch",
    "request_report",
]
