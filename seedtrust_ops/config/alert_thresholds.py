"""Alert thresholds: when each health rule and the watchdog open an alert, and who is notified by email and chat.

The rules themselves are in `domain/health/` and `watchdog/evaluator`.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.plaintext import is_loopback
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.email_addresses import is_email_address
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.severity import Severity

BATCH_STUCK_AFTER_GRACE, TRANSACTIONS_STUCK_AFTER_GRACE = 300, 3000
"""In seconds: when something counts as stuck after the grace time, unless a variable says otherwise."""


def _threshold(default: int | None, name: str, description: str, *, minimum: int = 1) -> Any:
    return Field(default=default, ge=minimum, validation_alias=f"SEEDTRUST_HEALTH_{name}", description=description)


class StuckAfter(NamedTuple):
    """After how many seconds a batch without a worker, and a transaction in `processing`, count as stuck."""

    batch_seconds: float
    transaction_seconds: float


class AlertThresholds(SettingsGroup):
    """The thresholds of the health rules, and how often the rules are evaluated."""

    interval_seconds: int = _threshold(
        20, "INTERVAL_SECONDS", "the number of seconds between two evaluations of the health rules"
    )
    quiet_seconds: int = _threshold(
        60, "QUIET_SECONDS", "the number of seconds a problem must be gone before its alert is resolved", minimum=0
    )
    window_seconds: int = _threshold(
        900, "WINDOW_SECONDS", "the number of seconds over which failed and expired runs are counted"
    )
    failed_runs: int = _threshold(10, "FAILED_RUNS", "the number of failed runs in that window that opens an alert")
    expired_runs: int = _threshold(10, "EXPIRED_RUNS", "the number of expired runs in that window that opens an alert")
    pending_runs: int = _threshold(100, "PENDING_RUNS", "the number of runs that may wait in the queue")
    pending_seconds: int = _threshold(600, "PENDING_SECONDS", "the number of seconds a run may wait in the queue")
    missed_seconds: int = _threshold(
        120, "MISSED_SECONDS", "the number of seconds after its due time when a tick counts as missed"
    )
    batch_queued_seconds: int = _threshold(900, "BATCH_QUEUED_SECONDS", "the number of seconds a batch may stay queued")
    batch_stuck_seconds: int | None = _threshold(
        None,
        "BATCH_STUCK_SECONDS",
        "the number of seconds a batch may be processing without a worker that holds its lease",
    )
    transactions_stuck_seconds: int | None = _threshold(
        None, "TRANSACTIONS_STUCK_SECONDS", "the number of seconds a transaction may stay in processing"
    )
    reports_waiting_seconds: int = _threshold(
        300, "REPORTS_WAITING_SECONDS", "the number of seconds a report request may stay pending"
    )
    drs_overdue_seconds: int = _threshold(
        86_400,
        "DRS_OVERDUE_SECONDS",
        "the number of seconds after its date when an unapproved disbursement request is overdue",
    )
    ledger_every_seconds: int = _threshold(
        300, "LEDGER_EVERY_SECONDS", "the number of seconds between two checks of the whole ledger"
    )
    outbox_wait_seconds: int = _threshold(
        900, "TELLING_WAITS_SECONDS", "the number of seconds an email or event may wait for delivery"
    )
    digest_hour: int = Field(
        default=8,
        ge=0,
        le=23,
        validation_alias="SEEDTRUST_HEALTH_DIGEST_HOUR",
        description="the hour of the day, in SEEDTRUST_TIMEZONE, of the daily alert digest",
    )
    minutely_failures: int = _threshold(
        3,
        "MINUTELY_FAILURES",
        "the number of consecutive failed runs of a job that runs every minute that opens an alert",
    )

    failures_by_severity: ClassVar[Mapping[Severity, int]] = {
        Severity.CRITICAL: 1,
        Severity.HIGH: 1,
        Severity.MEDIUM: 2,
        Severity.LOW: 3,
    }
    """How many consecutive runs of a job must fail or expire before it alerts, if its next run is soon."""
    soon_seconds: ClassVar[float] = 3600
    """A job whose next run is further away than this alerts after its first failure (docs/rules.md, section 7)."""
    minutely_jobs: ClassVar[frozenset[str]] = frozenset({"auto_heal_huntington_batches"})
    """Jobs that run about every minute, whose next run recovers from a single failure. None of them is CRITICAL."""

    def stuck_after(self, grace_seconds: float) -> StuckAfter:
        """Return when something counts as stuck: never within the grace time, for which it waits on purpose.

        `grace_seconds` is HUNTINGTON_UNKNOWN_GRACE_SECONDS. Raises ConfigurationError if a variable is below it.
        """
        for name in ("batch_stuck_seconds", "transactions_stuck_seconds"):
            seconds, field = getattr(self, name), type(self).model_fields[name]
            if seconds is not None and seconds < grace_seconds:
                raise ConfigurationError(
                    f"{field.validation_alias} is invalid: it is less than HUNTINGTON_UNKNOWN_GRACE_SECONDS "
                    f"({grace_seconds:g}), for which a batch waits on purpose before the bank is believed not to know "
                    f"a transfer. It is {field.description}."
                )
        return StuckAfter(
            self.batch_stuck_seconds or grace_seconds + BATCH_STUCK_AFTER_GRACE,
            self.transactions_stuck_seconds or grace_seconds + TRANSACTIONS_STUCK_AFTER_GRACE,
        )

    def failures_in_a_row(self, job: str, severity: Severity, seconds_between_runs: float | None) -> int:
        """Return how many consecutive failed runs of `job` open an alert; its schedule says how often it runs."""
        if seconds_between_runs is not None and seconds_between_runs > self.soon_seconds:
            return 1
        return self.minutely_failures if job in self.minutely_jobs else self.failures_by_severity[severity]


class WatchdogSettings(SettingsGroup):
    """How often the watchdog probes Dagster, and when it alerts; `seedtrust-ops gameday` shortens these."""

    interval_seconds: float = Field(
        default=15,
        gt=0,
        le=60,
        validation_alias="SEEDTRUST_WATCHDOG_INTERVAL_SECONDS",
        description="the number of seconds between two probes of the watchdog, at most 60",
    )
    heartbeat_seconds: float = Field(
        default=120,
        # Dagster's daemon sends a heartbeat every 30 s, its scheduler every 60 s.
        ge=45,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS",
        description="the number of seconds without a daemon heartbeat before the watchdog alerts, at least 45",
    )
    grace_seconds: float = Field(
        default=60,
        ge=0,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_GRACE_SECONDS",
        description="the number of seconds, beyond two of its intervals, without a tick before the watchdog alerts",
    )
    database_seconds: float = Field(
        default=30,
        ge=0,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_DATABASE_SECONDS",
        description="the number of seconds that a database may be unreachable before the watchdog alerts",
    )


class AlertEmailSettings(SettingsGroup):
    """Who receives alert email."""

    emails: tuple[str, ...] = Field(
        validation_alias="ALERT_EMAILS",
        description="a comma-separated list of email addresses that receive alerts",
    )

    @field_validator("emails", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        if not isinstance(text, str):
            return text
        return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))

    @field_validator("emails")
    @classmethod
    def _require_addresses(cls, emails: tuple[str, ...]) -> tuple[str, ...]:
        if not emails:
            raise ValueError("it contains no address")
        if not all(is_email_address(address) for address in emails):
            raise ValueError("each part must be an email address like oncall@seedtrust.example")
        return emails


_NEXT_URL = re.compile(r"[\s,]+(?=[A-Za-z0-9+.-]+://)")
"""Where one URL ends and the next begins; some URLs contain commas."""


class AlertUrlSettings(SettingsGroup):
    """The chat and paging services that receive alerts, as URLs of the library Apprise."""

    urls: tuple[SecretStr, ...] = Field(
        default=(),
        validation_alias="ALERT_URLS",
        description="a list of Apprise URLs, separated by commas or spaces, of the chat and paging services that "
        "receive alerts, such as Slack, PagerDuty or Teams",
    )

    @field_validator("urls", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        if not isinstance(text, str):
            return text
        return tuple(dict.fromkeys(part.strip() for part in _NEXT_URL.split(text.strip()) if part.strip()))

    @field_validator("urls")
    @classmethod
    def _require_known_services(cls, urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        unknown = [str(number) for number, url in enumerate(urls, start=1) if _service(url) is None]
        if unknown:
            # Not the URL itself: it contains the service's secret.
            raise ValueError(f"URL {', '.join(unknown)} of the list is not one of a service that Apprise knows")
        return urls

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        exposed = [str(number) for number, url in enumerate(self.urls, start=1) if _is_exposed(_service(url))]
        if not exposed:
            return {}
        return {
            "ALERT_URLS": f"URL {', '.join(exposed)} of the list sends alerts to another machine unencrypted, or does "
            "not verify its certificate. Use the scheme that ends in s, without verify=no"
        }


def _service(url: SecretStr) -> Any:
    # Only where a URL is set: importing it takes longer than reading all settings.
    from apprise import Apprise

    return Apprise.instantiate(url.get_secret_value(), suppress_exceptions=True)


def _is_exposed(service: Any) -> bool:
    """Return whether what is sent to the service can be read on the way. Services without a host have no way."""
    plaintext = service.protocol or ()
    is_plaintext = service.schema in ((plaintext,) if isinstance(plaintext, str) else plaintext)
    return bool(service.host) and not is_loopback(service.host) and (is_plaintext or not service.verify_certificate)
