"""External services: S3, CloudFront, SeedTrust's internal API, and PostHog.

S3's endpoint, region and credentials are not here: boto3 reads its own variables.
"""

import re

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup, clean_api_key, http_url

# AWS naming rules for general purpose buckets.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(SettingsGroup):
    """The S3 bucket for reports and account balances."""

    bucket: str = Field(
        validation_alias="REPORTS_BUCKET",
        description="the name of the S3 bucket that stores reports and balance checks",
    )

    @field_validator("bucket")
    @classmethod
    def _require_bucket_name(cls, name: str) -> str:
        if not _BUCKET.fullmatch(name):
            raise ValueError("a bucket name has 3 to 63 lowercase letters, digits, dots and hyphens")
        return name


class CloudFrontSettings(SettingsGroup):
    """The URL that the CloudFront check requests."""

    url: str = Field(
        validation_alias="CLOUDFRONT_URL",
        description="the URL of a page behind CloudFront, requested to check that CloudFront is up",
    )

    @field_validator("url")
    @classmethod
    def _require_http_url(cls, url: str) -> str:
        http_url(url)
        return url


class InternalApiSettings(SettingsGroup):
    """SeedTrust's internal API, which publishes the status of each component."""

    url: str = Field(
        validation_alias="INTERNAL_API_URL",
        description="the URL of SeedTrust's internal API, such as https://internal.example",
    )
    key: SecretStr = Field(
        validation_alias="INTERNAL_API_KEY",
        description="the API key for SeedTrust's internal API",
    )

    _is_http = field_validator("url")(http_url)
    _fits_a_header = field_validator("key")(clean_api_key)


class PostHogSettings(SettingsGroup):
    """The PostHog project that receives failed runs and alerts."""

    key: SecretStr | None = Field(
        default=None,
        validation_alias="POSTHOG_API_KEY",
        description="the API key of the PostHog project that receives failed runs and alerts; unset to send nothing",
    )
    host: str = Field(
        default="https://us.i.posthog.com",
        validation_alias="POSTHOG_HOST",
        description="the URL of PostHog's capture endpoint",
    )

    _is_http = field_validator("host")(http_url)

    @field_validator("key")
    @classmethod
    def _clean_key(cls, key: SecretStr | None) -> SecretStr | None:
        return clean_api_key(key) if key is not None else None
