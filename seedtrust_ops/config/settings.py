"""All settings, read once from the environment; no other module reads `os.environ`.

The groups in this module say how our own jobs run. Each group is read on first use, so a missing variable stops only
the jobs that need it, and the error names it.
"""

import os
import re
import time
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.alert_thresholds import (
    AlertEmailSettings,
    AlertThresholds,
    AlertUrlSettings,
    WatchdogSettings,
)
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    HeartbeatSettings,
    HuntingtonSettings,
    InternalApiSettings,
    MailSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.plaintext import is_loopback
from seedtrust_ops.config.running_sandbox import find_running_sandbox
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.errors import ConfigurationError
from seedtrust_ops.job_policies import JOB_POLICIES, job_policy

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


class LocationSettings(SettingsGroup):
    """Settings that Dagster needs when it loads the code location."""

    dev_env: bool = Field(
        default=False,
        validation_alias="DEV_ENV",
        description="1 on a developer's machine, where schedules and sensors start switched off",
    )
    timezone: str = Field(
        default="America/New_York",
        validation_alias="SEEDTRUST_TIMEZONE",
        description="the IANA time zone of all schedules and business dates, such as America/New_York",
    )

    dagster_home: Path | None = Field(
        default=None,
        validation_alias="DAGSTER_HOME",
        description="the folder that contains dagster.yaml",
    )
    sensor_wait_seconds: float = Field(
        default=9.5,
        ge=0,
        le=10,
        validation_alias="SEEDTRUST_SENSOR_WAIT_SECONDS",
        description="the number of seconds a sensor may wait for a database notification in one tick, at most 10",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("it is not a known time zone") from None
        return name


class TransferSettings(SettingsGroup):
    """Batch leases, the grace period for unknown transfers, and the environment's kill switch."""

    lease_seconds: float = Field(
        default=60,
        gt=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_LEASE_SECONDS",
        description="the number of seconds a worker's lease on a batch lasts without renewal",
    )
    unknown_grace_seconds: float = Field(
        default=600,
        ge=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_UNKNOWN_GRACE_SECONDS",
        description="the number of seconds to wait before a transfer that the bank does not know counts as not sent",
    )
    funding_retry_seconds: float = Field(
        default=300,
        gt=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_FUNDING_RETRY_SECONDS",
        description="the number of seconds after which a batch that waits for funds is checked again",
    )
    halted: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_TRANSFERS_HALTED",
        description="1 to stop sending transfers",
    )


TRANSFER_JOBS = ("process_huntington_batch", "auto_heal_huntington_batches")
"""The jobs that only work together: one sends transfers, the other finds out what became of them."""


class ShadowSettings(SettingsGroup):
    """The two switches of shadow mode: all jobs, or the jobs that a legacy system still runs.

    A job in shadow mode records what it would have done and changes nothing else. docs/cutover.md says when to use
    which variable. See docs/decisions/shadow-mode.md.
    """

    all_jobs: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_SHADOW",
        description="1 to run every job in shadow mode: it records what it would have done and changes nothing else",
    )
    jobs: tuple[str, ...] = Field(
        default=(),
        validation_alias="SEEDTRUST_SHADOW_JOBS",
        description="a comma-separated list of jobs to run in shadow mode, because a legacy system still runs them",
    )

    @field_validator("jobs", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("jobs")
    @classmethod
    def _require_known_jobs(cls, jobs: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [str(position) for position, job in enumerate(jobs, start=1) if job not in JOB_POLICIES]
        if unknown:
            # A mistyped name would leave a job live that somebody believes is in shadow mode, so no job may run.
            # The value is not repeated: people put secrets into the wrong variables.
            positions, names = ", ".join(unknown), ", ".join(JOB_POLICIES)
            raise ValueError(f"the list contains an unknown job at position {positions}; the jobs are {names}")
        return jobs

    @field_validator("jobs")
    @classmethod
    def _keep_transfer_jobs_together(cls, jobs: tuple[str, ...]) -> tuple[str, ...]:
        listed = [job for job in TRANSFER_JOBS if job in jobs]
        if len(listed) == 1:
            # Live auto-heal would requeue batches of the legacy worker, which could then send them twice. Without live
            # auto-heal, nobody would ask the bank about the transfers whose outcome is unknown.
            (other,) = set(TRANSFER_JOBS) - set(listed)
            raise ValueError(f"it has {listed[0]} without {other}; both must be in shadow mode, or neither")
        return jobs

    @field_validator("jobs")
    @classmethod
    def _refuse_live_jobs(cls, jobs: tuple[str, ...]) -> tuple[str, ...]:
        live = [job for job in jobs if JOB_POLICIES[job].always_live]
        if live:
            raise ValueError(f"{', '.join(live)} runs live in shadow mode too; remove the name")
        return jobs

    def covers(self, job: str) -> bool:
        """Return whether this job runs in shadow mode."""
        return not job_policy(job).always_live and (self.all_jobs or job in self.jobs)


class RetentionSettings(SettingsGroup):
    """How long Dagster's runs and delivered events are kept, in days, and the time limit of one purge.

    JobRun, transfer attempts and the ledger are never purged.
    """

    frequent_days: int = Field(
        default=60,
        ge=1,
        le=36_500,
        validation_alias="SEEDTRUST_RETENTION_FREQUENT_DAYS",
        description="the number of days to keep successful runs of jobs that run all day",
    )
    other_days: int = Field(
        default=400,
        ge=1,
        le=36_500,
        validation_alias="SEEDTRUST_RETENTION_DAYS",
        description="the number of days to keep all other runs",
    )
    events_days: int = Field(
        default=60,
        ge=1,
        le=36_500,
        validation_alias="SEEDTRUST_RETENTION_EVENTS_DAYS",
        description="the number of days to keep events that were delivered to PostHog and the internal API",
    )
    max_seconds: int = Field(
        default=900,
        ge=0,
        validation_alias="SEEDTRUST_RETENTION_SECONDS",
        description="the maximum number of seconds of one purge; the next day's purge continues it",
    )


class WebSettings(SettingsGroup):
    """The names at which people and applications reach the web server of the Dagster UI."""

    hosts: tuple[str, ...] = Field(
        default=(),
        validation_alias="SEEDTRUST_WEB_HOSTS",
        description="a comma-separated list of the web server's host names, such as operations.example.com",
    )

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        return tuple(part.lower() for part in text.replace(",", " ").split()) if isinstance(text, str) else text

    @field_validator("hosts")
    @classmethod
    def _require_host_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_HOST_NAME.fullmatch(host) for host in hosts):
            raise ValueError("it must contain host names only, without scheme, port, path or wildcard")
        return hosts


class FieldKeySettings(SettingsGroup):
    """The encryption keys of account numbers, newest first."""

    supplied_by_sandbox = True

    keys: tuple[SecretStr, ...] = Field(
        validation_alias="SEEDTRUST_FIELD_KEY",
        description="the Fernet key that encrypts account numbers (or several keys, comma-separated, newest first)",
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("keys")
    @classmethod
    def _require_one(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not keys:
            raise ValueError("it contains no key")
        return keys


class Settings:
    """All groups of settings; each is read from `environment` on first access and then kept."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @cached_property
    def location(self) -> LocationSettings:
        return LocationSettings.read(self._environment)

    @cached_property
    def databases(self) -> DatabaseSettings:
        return DatabaseSettings.read(self._environment)

    @cached_property
    def huntington(self) -> HuntingtonSettings:
        group = HuntingtonSettings.read(self._environment)
        if self.databases.application_url is None and not is_loopback(urlsplit(group.api_url).hostname or ""):
            # The embedded database is the one of `make dev`, with batches of an invented company.
            raise ConfigurationError(
                "SEEDTRUST_DATABASE_URL is not set, and the embedded database may have sample batches, which the bank "
                "at HUNTINGTON_API_URL would pay. Set SEEDTRUST_DATABASE_URL, or remove the HUNTINGTON_ variables."
            )
        return group

    @cached_property
    def transfers(self) -> TransferSettings:
        return TransferSettings.read(self._environment)

    @cached_property
    def field_keys(self) -> FieldKeySettings:
        return FieldKeySettings.read(self._environment)

    @cached_property
    def mail(self) -> MailSettings:
        return MailSettings.read(self._environment)

    @cached_property
    def storage(self) -> StorageSettings:
        return StorageSettings.read(self._environment)

    @cached_property
    def cloudfront(self) -> CloudFrontSettings:
        return CloudFrontSettings.read(self._environment)

    @cached_property
    def internal_api(self) -> InternalApiSettings:
        return InternalApiSettings.read(self._environment)

    @cached_property
    def posthog(self) -> PostHogSettings:
        return PostHogSettings.read(self._environment)

    @cached_property
    def alert_thresholds(self) -> AlertThresholds:
        return AlertThresholds.read(self._environment)

    @cached_property
    def alert_emails(self) -> AlertEmailSettings:
        return AlertEmailSettings.read(self._environment)

    @cached_property
    def alert_urls(self) -> AlertUrlSettings:
        return AlertUrlSettings.read(self._environment)

    @cached_property
    def heartbeat(self) -> HeartbeatSettings:
        return HeartbeatSettings.read(self._environment)

    @cached_property
    def retention(self) -> RetentionSettings:
        return RetentionSettings.read(self._environment)

    @cached_property
    def shadow(self) -> ShadowSettings:
        return ShadowSettings.read(self._environment)

    @cached_property
    def web(self) -> WebSettings:
        return WebSettings.read(self._environment)

    @cached_property
    def watchdog(self) -> WatchdogSettings:
        return WatchdogSettings.read(self._environment)


_may_use_running_sandbox = True


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, the same object until `replace_environment`.

    If nothing is configured, they are those of the sandbox that this user is running, if any.
    """
    sandbox = find_running_sandbox(os.environ) if _may_use_running_sandbox else {}
    if not sandbox:
        return Settings(os.environ)
    # boto3 reads its own variables from the process.
    os.environ.update({name: value for name, value in sandbox.items() if name.startswith("AWS_")})
    # A copy, so that what is set later in this process cannot add a real database to the sandbox's bank.
    return Settings({**os.environ, **sandbox})


def ignore_running_sandbox() -> None:
    """Let this process have its own variables alone: it starts a sandbox itself, or tests one."""
    global _may_use_running_sandbox
    _may_use_running_sandbox = False
    get_settings.cache_clear()


def overridden_variables(changes: Mapping[str, str]) -> list[str]:
    """Return the names of this process's variables that have another value in `changes`."""
    return sorted(name for name, value in changes.items() if os.environ.get(name, "") not in ("", value))


def environment_for_child(changes: Mapping[str, str], *, defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a child process: `defaults`, overridden by this process's, overridden by `changes`."""
    return {**(defaults or {}), **os.environ, **changes}


def replace_environment(variables: Mapping[str, str]) -> None:
    """Replace this process's variables (after a fork, by the requester's) and drop the settings read from them."""
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    get_settings.cache_clear()


def dagster_home() -> Path:
    """Return the folder that contains dagster.yaml: DAGSTER_HOME, else this checkout, else the working directory.

    Raises:
        ConfigurationError: if none of them contains a dagster.yaml.
    """
    configured = get_settings().location.dagster_home
    candidates = [configured] if configured is not None else [Path(__file__).parents[2], Path.cwd()]
    for folder in candidates:
        if (folder.expanduser() / "dagster.yaml").is_file():
            return folder.expanduser().resolve()
    searched = " or ".join(str(folder) for folder in candidates)
    raise ConfigurationError(f"No dagster.yaml in {searched}. Set DAGSTER_HOME to the folder that contains it.")
