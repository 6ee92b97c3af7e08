"""Where reports are kept, what CloudFront serves, the API that is told how both are, and PostHog.

S3's endpoint, region and credentials are boto3's own variables, which boto3 reads itself.
"""

import re

from pydantic import Field, SecretStr, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup, header_key, http_address

# Amazon's rules for the names of general purpose buckets.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StorageSettings(SettingsGroup):
    """The bucket that holds reports and balances."""

    bucket: str = Field(
        validation_alias="REPORTS_BUCKET",
        description="the name of the S3 bucket that reports and balance checks are kept in",
    )

    @field_validator("bucket")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _BUCKET.fullmatch(name):
            raise ValueError("a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens")
        return name


class CloudFrontSettings(SettingsGroup):
    """The address that shows whether CloudFront serves."""

    url: str = Field(
        validation_alias="CLOUDFRONT_URL",
        description="the address of a page behind CloudFront that is fetched to see whether CloudFront serves",
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        http_address(url)
        return url


class InternalApiSettings(SettingsGroup):
    """SeedTrust's internal API, which shows people how the outside world is."""

    url: str = Field(
        validation_alias="INTERNAL_API_URL",
        description="the address of SeedTrust's internal API, such as https://internal.example",
    )
    key: SecretStr = Field(
        validation_alias="INTERNAL_API_KEY",
        description="the key that SeedTrust's internal API knows this project by",
    )

    _is_http = field_validator("url")(http_address)
    _fits_a_header = field_validator("key")(header_key)


class PostHogSettings(SettingsGroup):
    """The PostHog project that is told of failed runs and alerts."""

    key: SecretStr | None = Field(
        default=None,
        validation_alias="POSTHOG_API_KEY",
        description="the key of the PostHog project that is told of failed runs and alerts; unset: none is told",
    )
    host: str = Field(
        default="https://us.i.posthog.com",
        validation_alias="POSTHOG_HOST",
        description="the address of PostHog's capture endpoint",
    )

    _is_http = field_validator("host")(http_address)

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        return header_key(key) if key is not None else None
