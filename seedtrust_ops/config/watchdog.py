"""Settings of the watchdog and of the heartbeat ping, which both report that Dagster has stopped.

The thresholds of the health rules, which run inside Dagster, are in `health_thresholds`.
"""

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup, http_url


class HeartbeatSettings(SettingsGroup):
    """The external monitor that alerts when pings stop."""

    url: SecretStr | None = Field(
        default=None,
        validation_alias="HEARTBEAT_URL",
        description="the URL of a healthchecks.io-style check that every health tick pings; unset to send no pings",
    )

    @field_validator("url")
    @classmethod
    def _require_http_url(cls, url: SecretStr | None) -> SecretStr | None:
        # The URL is a secret: anybody who knows it can send pings and keep the monitor from alerting.
        return SecretStr(http_url(url.get_secret_value())) if url is not None else None


class WatchdogSettings(SettingsGroup):
    """How often the watchdog probes, and when it alerts; `seedtrust-ops gameday` shortens these."""

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
