"""The types of a status report: plain values, times in UTC, money in cents; `health` rates them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True)
class JobStatus:
    """A job with its schedule or sensor, or a sensor that launches no job (its `severity` is None).

    `state` is RUNNING or STOPPED, or None if the job has no schedule or sensor. `last_run_seconds` is the duration of
    the last run, so far if it is running. Ticks are those of the schedule or sensor, None if unknown. A
    `next_tick_at` in the past is late; from `silent_at` on the schedule or sensor has stopped. `is_in_shadow_mode`
    means that the job only records what it would have done.
    """

    name: str
    severity: str | None
    automation: str | None
    state: str | None
    last_run_id: str | None
    last_run_status: str | None
    last_run_at: datetime | None
    last_run_seconds: float | None
    last_tick_at: datetime | None
    last_tick_status: str | None
    next_tick_at: datetime | None
    silent_at: datetime | None
    is_in_shadow_mode: bool = False


@dataclass(frozen=True)
class RunCount:
    """The number of queued runs, or of runs in progress, of one job, and the time of the oldest."""

    job: str
    runs: int
    oldest_at: datetime


@dataclass(frozen=True)
class DagsterStatus:
    """Status from Dagster's database. `heartbeats` is by daemon type; it is empty if no daemon ever ran."""

    heartbeats: Mapping[str, datetime]
    jobs: list[JobStatus]
    queued: list[RunCount]
    in_progress: list[RunCount]


@dataclass(frozen=True)
class BatchProgress:
    """A queued or processing batch; `sent` counts its transactions at the bank or settled, including `failed`.

    `held_by` is the run that holds the lease, None if there is none.
    """

    batch_id: int
    status: str
    since: datetime
    transactions: int
    sent: int
    failed: int
    cents: int
    held_by: str | None


@dataclass(frozen=True)
class OpenAlert:
    """An open alert; `acknowledged_by` is the person who is working on it, None once their acknowledgement ended."""

    id: int
    severity: str
    rule: str
    subject: str
    opened_at: datetime
    detail: str
    acknowledged_by: str | None


@dataclass(frozen=True)
class Backlog:
    """Work that waits: how many items, the time of the oldest, and how many failed permanently."""

    pending: int
    oldest_at: datetime | None
    failed: int


@dataclass(frozen=True)
class Unnotified:
    """How many urgent alerts have reached no person, since when, and why email fails (None if that is not known)."""

    alerts: int = 0
    since: datetime | None = None
    email_error: str | None = None


@dataclass(frozen=True)
class Workload:
    """Status from the application's database.

    `halted_reason` says why no transfers are sent, None if they are. `batches` counts all batches by status;
    `batches_in_progress` lists the oldest queued and processing ones. `transfers_in_flight` counts transfers by what is
    known of them, whatever somebody has written into their status; `settles_by` is the Eastern day by whose end all
    that the bank has accepted should have settled, None if that is nothing; `bank_read_at` is when the bank's feed was
    last read to its end. `unnotified` are the urgent alerts that have reached no person so far.
    """

    halted_reason: str | None
    batches: Mapping[str, int]
    batches_in_progress: list[BatchProgress]
    transfers_in_flight: Mapping[str, int]
    cents_in_flight: int
    settles_by: date | None
    bank_read_at: datetime | None
    emails: Backlog
    events: Backlog
    reports: Backlog
    reports_in_progress: int
    alerts: list[OpenAlert]
    alerts_open: int
    unnotified: Unnotified


@dataclass(frozen=True)
class StatusReport:
    """The status at `at`. For each database there is either its part of the report or an error message."""

    at: datetime
    dagster_error: str | None
    application_error: str | None
    dagster: DagsterStatus | None
    workload: Workload | None

    @property
    def errors(self) -> list[str]:
        """Why a database could not be queried, without duplicates."""
        return list(dict.fromkeys(filter(None, (self.application_error, self.dagster_error))))
