"""What is known of how things stand: plain values, times aware and in UTC, money in cents.

Whether that is well or ill is for `health` to judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class JobStanding:
    """A job, or a sensor that launches none (its `severity` is None).

    `state` is RUNNING or STOPPED, None where nothing launches it by itself. `last_run_seconds` is how long it took, or
    has taken so far. `last_tick_at` and `next_tick_at` are its schedule's or sensor's, None where none is known;
    the next one may be past: it is late then, and has stopped from `silent_at` on. `in_shadow` where it only records
    what it would have done.
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
    in_shadow: bool = False


@dataclass(frozen=True)
class QueueStanding:
    """The runs of one job that wait in Dagster's queue, or those that are under way, and since when the oldest does."""

    job: str
    runs: int
    oldest_at: datetime


@dataclass(frozen=True)
class DagsterStanding:
    """What Dagster's database knows; `heartbeats` is by part of the daemon, empty where none ever ran."""

    heartbeats: Mapping[str, datetime]
    jobs: list[JobStanding]
    queued: list[QueueStanding]
    under_way: list[QueueStanding]


@dataclass(frozen=True)
class BatchStanding:
    """A batch on its way: `sent` of its `transactions` are with the bank or settled, `failed` among them.

    `held_by` is the run that holds it, None where nobody does.
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
class AlertStanding:
    """An open alert; `acknowledged_by` is who sees to it."""

    id: int
    severity: str
    rule: str
    subject: str
    opened_at: datetime
    detail: str
    acknowledged_by: str | None


@dataclass(frozen=True)
class Waiting:
    """Something that waits to be done: how many, since when the oldest waits, and how many failed for good."""

    waiting: int
    oldest_at: datetime | None
    failed: int


@dataclass(frozen=True)
class WorkStanding:
    """What the application's database knows. `batches` counts all by status, `on_their_way` lists the oldest.

    `transactions_in_flight` counts those whose truth is open by status; `halted` says why nothing is sent.
    """

    halted: str | None
    batches: Mapping[str, int]
    on_their_way: list[BatchStanding]
    transactions_in_flight: Mapping[str, int]
    cents_in_flight: int
    letters: Waiting
    events: Waiting
    reports: Waiting
    reports_under_way: int
    alerts: list[AlertStanding]
    alerts_open: int


@dataclass(frozen=True)
class StatusReport:
    """How things stood at `at`. Of each database either it was asked or the trouble is a sentence."""

    at: datetime
    dagster_trouble: str | None
    application_trouble: str | None
    dagster: DagsterStanding | None
    work: WorkStanding | None

    @property
    def troubles(self) -> list[str]:
        """Why a database could not be asked, each sentence once."""
        return list(dict.fromkeys(filter(None, (self.application_trouble, self.dagster_trouble))))
