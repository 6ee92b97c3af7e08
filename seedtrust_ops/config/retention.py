"""How long Dagster's runs and delivered events are kept; JobRun, attempts and the ledger are never purged."""

from pydantic import Field

from seedtrust_ops.config.settings_base import SettingsGroup


class RetentionSettings(SettingsGroup):
    """Retention periods in days, and the time limit of one purge."""

    frequent_days: int = Field(
        default=60,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_FREQUENT_DAYS",
        description="the number of days to keep successful runs of jobs that run all day",
    )
    other_days: int = Field(
        default=400,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_DAYS",
        description="the number of days to keep all other runs",
    )
    events_days: int = Field(
        default=60,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_EVENTS_DAYS",
        description="the number of days to keep events that were delivered to PostHog and the internal API",
    )
    max_seconds: int = Field(
        default=900,
        ge=0,
        validation_alias="SEEDTRUST_RETENTION_SECONDS",
        description="the maximum number of seconds of one purge; the next day's purge continues it",
    )
