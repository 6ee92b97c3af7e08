"""Whom Dagster's own life is shown to, and how long its silence is borne.

What is watched while Dagster lives has its settings beside this file.
"""

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup, http_address


class HeartbeatSettings(SettingsGroup):
    """The monitor outside that misses us when we fall silent."""

    url: SecretStr | None = Field(
        default=None,
        validation_alias="HEARTBEAT_URL",
        description="the address of a check (healthchecks.io style) that every health tick pings; unset for no ping",
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr | None) -> SecretStr | None:
        # Whoever knows the address can ping, and keep the monitor quiet.
        return SecretStr(http_address(url.get_secret_value())) if url is not None else None


class WatchdogSettings(SettingsGroup):
    """How often the watchdog looks, and what silence it bears; a drill shortens these."""

    interval_seconds: float = Field(
        default=15,
        gt=0,
        le=60,
        validation_alias="SEEDTRUST_WATCHDOG_INTERVAL_SECONDS",
        description="how many seconds pass between two looks of the watchdog, at most 60",
    )
    heartbeat_seconds: float = Field(
        default=120,
        # Dagster's daemon beats every 30 s, its scheduler every 60 s.
        ge=45,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_HEARTBEAT_SECONDS",
        description="how many seconds Dagster's daemon may send no heartbeat, at least 45",
    )
    grace_seconds: float = Field(
        default=60,
        ge=0,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_GRACE_SECONDS",
        description="how many seconds beyond two of its intervals a schedule or sensor may not tick",
    )
    database_seconds: float = Field(
        default=30,
        ge=0,
        allow_inf_nan=False,
        validation_alias="SEEDTRUST_WATCHDOG_DATABASE_SECONDS",
        description="how many seconds a database may not be reached",
    )
