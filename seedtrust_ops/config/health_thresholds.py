"""How much trouble is borne before somebody is told: every threshold of the health rules, in seconds and counts.

What the rules look at is `domain/health/`'s; who is told, by letter, stands here too.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.severity import Severity

_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")


def _threshold(default: int, name: str, description: str, *, least: int = 1) -> Any:
    return Field(default=default, ge=least, validation_alias=f"SEEDTRUST_HEALTH_{name}", description=description)


class WatchingSettings(SettingsGroup):
    """The thresholds of the health rules, and how often they are looked at."""

    interval_seconds: int = _threshold(20, "INTERVAL_SECONDS", "how many seconds pass between two looks at the rules")
    quiet_seconds: int = _threshold(
        60, "QUIET_SECONDS", "how many seconds trouble must be gone for before its alert is resolved", least=0
    )
    window_seconds: int = _threshold(900, "WINDOW_SECONDS", "how far back runs are counted for a spike, in seconds")
    failed_runs: int = _threshold(10, "FAILED_RUNS", "how many failed runs in that time are a spike")
    expired_runs: int = _threshold(10, "EXPIRED_RUNS", "how many runs that expired in that time are a spike")
    pending_runs: int = _threshold(100, "PENDING_RUNS", "how many runs may wait in the queue")
    pending_seconds: int = _threshold(600, "PENDING_SECONDS", "how many seconds a run may wait in the queue")
    missed_seconds: int = _threshold(120, "MISSED_SECONDS", "how many seconds after it was due a tick counts as missed")
    batch_queued_seconds: int = _threshold(
        900, "BATCH_QUEUED_SECONDS", "how many seconds a batch may wait in the queue without being sent"
    )
    batch_stuck_seconds: int = _threshold(
        300, "BATCH_STUCK_SECONDS", "how many seconds a batch may be processing while no worker holds it"
    )
    transactions_stuck_seconds: int = _threshold(
        3600, "TRANSACTIONS_STUCK_SECONDS", "how many seconds the truth about a transaction may stay open"
    )
    reports_waiting_seconds: int = _threshold(
        300, "REPORTS_WAITING_SECONDS", "how many seconds a report may be waited for before it is begun"
    )
    drs_overdue_seconds: int = _threshold(
        86_400, "DRS_OVERDUE_SECONDS", "how many seconds after its date a request may still not be approved"
    )
    ledger_every_seconds: int = _threshold(
        300, "LEDGER_EVERY_SECONDS", "how many seconds pass between two looks at the whole ledger"
    )
    telling_waits_seconds: int = _threshold(
        900, "TELLING_WAITS_SECONDS", "how many seconds a letter or an event may wait to be delivered"
    )
    digest_hour: int = Field(
        default=8,
        ge=0,
        le=23,
        validation_alias="SEEDTRUST_HEALTH_DIGEST_HOUR",
        description="the hour of the office's wall clock at which the day's digest of alerts is written",
    )
    minutely_failures: int = _threshold(
        3, "MINUTELY_FAILURES", "how many failed runs in a row of a job that runs all the time are trouble"
    )

    by_severity: ClassVar[Mapping[Severity, int]] = {
        Severity.CRITICAL: 1,
        Severity.HIGH: 1,
        Severity.MEDIUM: 2,
        Severity.LOW: 3,
    }
    """How many runs of a job must fail, or expire, in a row."""
    minutely: ClassVar[frozenset[str]] = frozenset({"auto_heal_huntington_batches"})
    """Jobs that run every minute or so and whose single failures the next run mends; no CRITICAL job is among them."""

    def failures_in_a_row(self, job: str, severity: Severity) -> int:
        """Return how many runs of `job` must fail in a row for an alert."""
        return self.minutely_failures if job in self.minutely else self.by_severity[severity]


class AlertLetterSettings(SettingsGroup):
    """Who is written to when there is trouble."""

    emails: Annotated[tuple[str, ...], NoDecode] = Field(
        validation_alias="ALERT_EMAILS",
        description="the addresses, comma-separated, that are written to when the health rules find trouble",
    )

    @field_validator("emails", mode="before")
    @classmethod
    def _split(cls, text: object) -> object:
        if not isinstance(text, str):
            return text
        return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))

    @field_validator("emails")
    @classmethod
    def _are_addresses(cls, emails: tuple[str, ...]) -> tuple[str, ...]:
        if not emails:
            raise ValueError("it holds no address")
        if not all(_ADDRESS.fullmatch(address) for address in emails):
            raise ValueError("each part must be an address like oncall@seedtrust.example")
        return emails
