"""Whom Dagster's own life is shown to, and how long its silence is borne.

What is watched while Dagster lives has its settings beside this file.
"""

from pydantic import Field, field_validator

from seedtrust_ops.settings.group import SettingsGroup, http_address


class HeartbeatSettings(SettingsGroup):
    """The monitor outside that misses us when we fall silent."""

    url: str | None = Field(
        default=None,
        validation_alias="HEARTBEAT_URL",
        description="the address of a check (healthchecks.io style) that every health tick pings; unset for no ping",
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        return http_address(url) if url is not None else None
