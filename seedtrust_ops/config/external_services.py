"""External services: Huntington, the mail server, S3, CloudFront, SeedTrust's internal API, PostHog and the heartbeat.

S3's endpoint, region and credentials are not here: boto3 reads its own variables.
"""

import re
from collections.abc import Mapping

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from seedtrust_ops.config.plaintext import is_loopback
from seedtrust_ops.config.settings_base import (
    SettingsGroup,
    clean_api_key,
    find_plaintext_urls,
    http_url,
)
from seedtrust_ops.email_addresses import InvalidEmailAddress, parse_mailbox

IMPLICIT_TLS_PORT = 465
"""On this port of a mail server TLS starts at once, without STARTTLS (RFC 8314, 7.3)."""
# AWS naming rules for general purpose buckets.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class HuntingtonSettings(SettingsGroup):
    """How to reach the Huntington API, with its request limits."""

    supplied_by_sandbox = True

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

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return find_plaintext_urls({"HUNTINGTON_API_URL": self.api_url})


class MailSettings(SettingsGroup):
    """The mail server (SMTP) and the sender address of SeedTrust's email; STARTTLS is on unless it is switched off."""

    supplied_by_sandbox = True

    host: str = Field(
        validation_alias="SMTP_HOST",
        description="the hostname of the mail server that sends SeedTrust's email, such as smtp.example.com",
    )
    port: int = Field(
        default=587,
        ge=1,
        le=65_535,
        validation_alias="SMTP_PORT",
        description="the port of the mail server; on 465 TLS starts at once, on any other after STARTTLS",
    )
    username: str | None = Field(
        default=None,
        validation_alias="SMTP_USERNAME",
        description="the login name for the mail server; leave it unset if the server requires no login",
    )
    password: SecretStr | None = Field(
        default=None,
        validation_alias="SMTP_PASSWORD",
        description="the password for SMTP_USERNAME",
    )
    starttls: bool = Field(
        default=True,
        validation_alias="SMTP_STARTTLS",
        description="0 to send email without encryption, which is safe only with a mail server on this machine; port "
        "465 is always encrypted",
    )
    email_from: str = Field(
        validation_alias="EMAIL_FROM",
        description="the sender of all email, such as SeedTrust Escrow <escrow@seedtrust.example>",
    )

    @field_validator("host")
    @classmethod
    def _require_host(cls, host: str) -> str:
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError("it is not a hostname like smtp.example.com") from None
        return host

    @field_validator("email_from")
    @classmethod
    def _require_address(cls, text: str) -> str:
        try:
            name, _ = parse_mailbox(text)
            is_valid = (name + text).isprintable()
        except InvalidEmailAddress:
            is_valid = False
        if not is_valid:
            raise ValueError("it is not an email address like escrow@seedtrust.example")
        return text

    @field_validator("password")
    @classmethod
    def _require_username(cls, password: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if password is not None and others.data.get("username") is None:
            raise ValueError("SMTP_USERNAME is not set, and a password requires a login name")
        return password

    @property
    def has_implicit_tls(self) -> bool:
        """Whether the server expects TLS from the first byte instead of STARTTLS."""
        return self.port == IMPLICIT_TLS_PORT

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        if self.starttls or self.has_implicit_tls or is_loopback(self.host):
            return {}
        return {
            "SMTP_STARTTLS": "emails, and the password of SMTP_USERNAME, would reach SMTP_HOST unencrypted. Remove it, "
            "or set it to 1"
        }


class StorageSettings(SettingsGroup):
    """The S3 bucket for reports and account balances."""

    supplied_by_sandbox = True

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

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        # boto3 has one such variable for all services and one for each, such as AWS_ENDPOINT_URL_S3.
        return find_plaintext_urls(
            {name: url for name, url in environment.items() if name.startswith("AWS_ENDPOINT_URL")}
        )


class CloudFrontSettings(SettingsGroup):
    """The URL that the CloudFront check requests."""

    supplied_by_sandbox = True

    url: str = Field(
        validation_alias="CLOUDFRONT_URL",
        description="the URL of a page behind CloudFront, requested to check that CloudFront is up",
    )

    @field_validator("url")
    @classmethod
    def _require_http_url(cls, url: str) -> str:
        http_url(url)
        return url

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return find_plaintext_urls({"CLOUDFRONT_URL": self.url})


class InternalApiSettings(SettingsGroup):
    """SeedTrust's internal API, which publishes the status of each component."""

    supplied_by_sandbox = True

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

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return find_plaintext_urls({"INTERNAL_API_URL": self.url})


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

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return find_plaintext_urls({"POSTHOG_HOST": self.host}) if self.key is not None else {}


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

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        return find_plaintext_urls({"HEARTBEAT_URL": self.url.get_secret_value()}) if self.url is not None else {}
