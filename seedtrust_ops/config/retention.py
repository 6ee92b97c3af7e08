"""How long Dagster's runs and what was told to others are kept; JobRun, attempts and ledger are kept for ever."""

from pydantic import Field

from seedtrust_ops.config.settings_base import SettingsGroup


class RetentionSettings(SettingsGroup):
    """Ages in days, and how long one clearing may take."""

    frequent_days: int = Field(
        default=60,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_FREQUENT_DAYS",
        description="for how many days a successful run of a job that runs all day is kept",
    )
    other_days: int = Field(
        default=400,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_DAYS",
        description="for how many days every other run is kept",
    )
    events_days: int = Field(
        default=60,
        ge=1,
        validation_alias="SEEDTRUST_RETENTION_EVENTS_DAYS",
        description="for how many days it is kept what PostHog and the internal API were told",
    )
    longest_seconds: int = Field(
        default=900,
        ge=0,
        validation_alias="SEEDTRUST_RETENTION_SECONDS",
        description="how many seconds one clearing may take; it goes on the next day",
    )
