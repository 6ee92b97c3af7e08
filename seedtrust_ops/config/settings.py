"""The environment, read once into frozen, typed settings; no other file reads `os.environ`.

Settings come in groups, so that a variable that one job lacks stops that job alone, at its start, by name.
"""

import os
import time
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    InternalApiSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.health_thresholds import AlertLetterSettings, WatchingSettings
from seedtrust_ops.config.mail import MailSettings
from seedtrust_ops.config.retention import RetentionSettings
from seedtrust_ops.config.settings_base import SettingsGroup, header_key, http_address, is_private
from seedtrust_ops.config.shadow import ShadowSettings
from seedtrust_ops.config.watchdog import HeartbeatSettings, WatchdogSettings
from seedtrust_ops.errors import ConfigurationError


class LocationSettings(SettingsGroup):
    """What Dagster must know when it loads the code location."""

    dev_env: bool = Field(
        default=False,
        validation_alias="DEV_ENV",
        description="1 on a developer's machine, where schedules and sensors start stopped",
    )
    timezone: str = Field(
        default="America/New_York",
        validation_alias="SEEDTRUST_TIMEZONE",
        description="the time zone of the office's wall clock, such as America/New_York",
    )

    dagster_home: Path | None = Field(
        default=None,
        validation_alias="DAGSTER_HOME",
        description="the folder that holds dagster.yaml",
    )
    sensor_wait_seconds: float = Field(
        default=9.5,
        ge=0,
        le=10,
        validation_alias="SEEDTRUST_SENSOR_WAIT_SECONDS",
        description="how many seconds a sensor may wait in the database for something to do, at most 10",
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("no time zone is called that") from None
        return name


class HuntingtonSettings(SettingsGroup):
    """How to reach the bank gateway, and how patiently."""

    api_url: str = Field(
        validation_alias="HUNTINGTON_API_URL",
        description="the address of the Huntington transfer gateway, such as https://bank.example",
    )
    api_key: SecretStr = Field(
        validation_alias="HUNTINGTON_API_KEY",
        description="the key that the Huntington transfer gateway knows SeedTrust by",
    )
    funding_account_id: str = Field(
        validation_alias="HUNTINGTON_FUNDING_ACCOUNT_ID",
        description="the account at Huntington that transfers are paid from",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=256,
        validation_alias="HUNTINGTON_CONCURRENCY",
        description="how many requests may be under way at the bank at once",
    )
    timeout_seconds: float = Field(
        default=10,
        gt=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_TIMEOUT_SECONDS",
        description="how many seconds one answer of the bank is waited for",
    )

    _is_http = field_validator("api_url")(http_address)
    _fits_a_header = field_validator("api_key")(header_key)

    @property
    def travels_in_the_clear(self) -> bool:
        """Whether what is sent to the bank can be read on its way: plain http to another machine than this."""
        return not is_private(self.api_url)


class TransferSettings(SettingsGroup):
    """SeedTrust's own rules of patience about transfers, and the switch that stops them."""

    lease_seconds: float = Field(
        default=60,
        gt=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_LEASE_SECONDS",
        description="how many seconds a worker holds a batch without renewing",
    )
    unknown_grace_seconds: float = Field(
        default=600,
        ge=0,
        allow_inf_nan=False,
        validation_alias="HUNTINGTON_UNKNOWN_GRACE_SECONDS",
        description="how many seconds a key that the bank does not know is waited for",
    )
    halted: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_TRANSFERS_HALTED",
        description="1 to stop all sending of transfers",
    )


class FieldKeySettings(SettingsGroup):
    """The keys of encrypted columns, newest first."""

    keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        validation_alias="SEEDTRUST_FIELD_KEY",
        description="the Fernet key (or keys, comma-separated, newest first) of encrypted account numbers",
    )

    @field_validator("keys", mode="before")
    @classmethod
    def _split(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("keys")
    @classmethod
    def _holds_one(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not keys:
            raise ValueError("it holds no key")
        return keys


class Environment:
    """Every group of settings, each read when it is first asked for and then kept."""

    @cached_property
    def location(self) -> LocationSettings:
        return LocationSettings.read()

    @cached_property
    def databases(self) -> DatabaseSettings:
        return DatabaseSettings.read()

    @cached_property
    def huntington(self) -> HuntingtonSettings:
        return HuntingtonSettings.read()

    @cached_property
    def transfers(self) -> TransferSettings:
        return TransferSettings.read()

    @cached_property
    def field_keys(self) -> FieldKeySettings:
        return FieldKeySettings.read()

    @cached_property
    def mail(self) -> MailSettings:
        return MailSettings.read()

    @cached_property
    def storage(self) -> StorageSettings:
        return StorageSettings.read()

    @cached_property
    def cloudfront(self) -> CloudFrontSettings:
        return CloudFrontSettings.read()

    @cached_property
    def internal_api(self) -> InternalApiSettings:
        return InternalApiSettings.read()

    @cached_property
    def posthog(self) -> PostHogSettings:
        return PostHogSettings.read()

    @cached_property
    def watching(self) -> WatchingSettings:
        return WatchingSettings.read()

    @cached_property
    def alert_letters(self) -> AlertLetterSettings:
        return AlertLetterSettings.read()

    @cached_property
    def heartbeat(self) -> HeartbeatSettings:
        return HeartbeatSettings.read()

    @cached_property
    def retention(self) -> RetentionSettings:
        return RetentionSettings.read()

    @cached_property
    def shadow(self) -> ShadowSettings:
        return ShadowSettings.read()

    @cached_property
    def watchdog(self) -> WatchdogSettings:
        return WatchdogSettings.read()


@lru_cache(maxsize=1)
def get_settings() -> Environment:
    """Return this process's environment; tests that change variables call `get_settings.cache_clear()`."""
    return Environment()


def environment_for_child(changes: Mapping[str, str], *, defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a process that we start: ours, over `defaults` and under `changes`."""
    return {**(defaults or {}), **os.environ, **changes}


def replace_environment(variables: Mapping[str, str]) -> None:
    """Give this process the variables of the one that it was forked for, and forget what was read before."""
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    get_settings.cache_clear()


def dagster_home() -> Path:
    """Return the folder of dagster.yaml: DAGSTER_HOME, else the one that this code lies in or was called from.

    Raises:
        ConfigurationError: when there is no dagster.yaml in any of them.
    """
    configured = get_settings().location.dagster_home
    candidates = [configured] if configured is not None else [Path(__file__).parents[2], Path.cwd()]
    for folder in candidates:
        if (folder.expanduser() / "dagster.yaml").is_file():
            return folder.expanduser().resolve()
    looked = " nor in ".join(str(folder) for folder in candidates)
    raise ConfigurationError(f"There is no dagster.yaml in {looked}: set DAGSTER_HOME to the folder that holds it.")
