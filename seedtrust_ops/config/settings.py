"""All settings, read once from the environment; no other module reads `os.environ`.

Each group is read on first use, so a missing variable stops only the jobs that need it, and the error names it.
"""

import os
import time
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    InternalApiSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.health_thresholds import AlertEmailSettings, HealthThresholds
from seedtrust_ops.config.mail import MailSettings
from seedtrust_ops.config.retention import RetentionSettings
from seedtrust_ops.config.settings_base import SettingsGroup, clean_api_key, http_url, is_tls_or_loopback
from seedtrust_ops.config.shadow import ShadowSettings
from seedtrust_ops.config.watchdog import HeartbeatSettings, WatchdogSettings
from seedtrust_ops.errors import ConfigurationError


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


class HuntingtonSettings(SettingsGroup):
    """How to reach the Huntington API, with its request limits."""

    api_url: str = Field(
        validation_alias="HUNTINGTON_API_URL",
        description="the URL of the Huntington API, such as https://bank.example",
    )
    api_key: SecretStr = Field(
        validation_alias="HUNTINGTON_API_KEY",
        description="SeedTrust's API key for the Huntington API",
    )
    funding_account_id: str = Field(
        validation_alias="HUNTINGTON_FUNDING_ACCOUNT_ID",
        description="the ID of the Huntington account that funds transfers",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=256,
        validation_alias="HUNTINGTON_CONCURRENCY",
        description="the maximum number of concurrent requests to the Huntington API",
    )
    timeout_seconds: float = Field(
        default=10,
        gt=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_TIMEOUT_SECONDS",
        description="the timeout in seconds of one request to the Huntington API",
    )

    _is_http = field_validator("api_url")(http_url)
    _fits_a_header = field_validator("api_key")(clean_api_key)

    @property
    def uses_plaintext(self) -> bool:
        """Whether requests to the bank could be read in transit: plain HTTP to another machine."""
        return not is_tls_or_loopback(self.api_url)


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
    halted: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_TRANSFERS_HALTED",
        description="1 to stop sending transfers",
    )


class FieldKeySettings(SettingsGroup):
    """The encryption keys of account numbers, newest first."""

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
        return HuntingtonSettings.read(self._environment)

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
    def health_thresholds(self) -> HealthThresholds:
        return HealthThresholds.read(self._environment)

    @cached_property
    def alert_emails(self) -> AlertEmailSettings:
        return AlertEmailSettings.read(self._environment)

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
    def watchdog(self) -> WatchdogSettings:
        return WatchdogSettings.read(self._environment)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return this process's settings, the same object until `replace_environment`."""
    return Settings(os.environ)


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
