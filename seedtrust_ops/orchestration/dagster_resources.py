"""The Dagster resources in `defs`: each opens one client from the settings.

The clients themselves are in `resources` and `database`, which do not import Dagster so that the watchdog can use them.
"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import dagster as dg
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import HuntingtonSettings, get_settings
from seedtrust_ops.database.engine import application_engine, application_sessions
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.component_status import TIMEOUT_SECONDS, CloudFrontPage, InternalApi
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.resources.s3_storage import S3Storage, open_storage
from seedtrust_ops.resources.smtp import SMTP_TIMEOUT_SECONDS, SmtpTransport, open_smtp_transport


class DatabaseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The application database, from SEEDTRUST_DATABASE_URL."""

    def sessions(self) -> sessionmaker[Session]:
        """Return the session factory; see `application_engine` for what it raises."""
        return application_sessions()

    def engine(self) -> Engine:
        """Return this process's engine, for callers that need a connection of their own."""
        return application_engine()


class ReadOnlyDatabase(DatabaseResource):
    """The application database for jobs that only read: PostgreSQL rejects every write."""

    def sessions(self) -> sessionmaker[Session]:
        """Return a session factory whose transactions are read-only."""
        return sessionmaker(self.engine().execution_options(postgresql_readonly=True), expire_on_commit=False)


class HuntingtonResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Huntington transfer gateway, from the HUNTINGTON_* variables."""

    @property
    def settings(self) -> HuntingtonSettings:
        """The bank settings; raises `ConfigurationError` naming the variable that is missing."""
        return get_settings().huntington

    def open(self) -> AbstractAsyncContextManager[HuntingtonBank]:
        """Open the bank client for the duration of a `with` block."""
        return open_huntington_bank(self.settings)


class FieldCipherResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The cipher for encrypted columns, from SEEDTRUST_FIELD_KEY."""

    def cipher(self) -> FernetFieldCipher:
        """Return the cipher; raises `ConfigurationError` if the key is missing or not a Fernet key."""
        return FernetFieldCipher(get_settings().field_keys.keys)


class MailResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The mail server, from the SMTP_* variables and EMAIL_FROM."""

    @contextmanager
    def open(self, *, timeout_seconds: float = SMTP_TIMEOUT_SECONDS) -> Iterator[SmtpTransport]:
        """Yield the mail server; raises `ConfigurationError` naming the variable that is missing."""
        with open_smtp_transport(get_settings().mail, timeout_seconds=timeout_seconds) as transport:
            yield transport


class StorageResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The S3 bucket for reports and other files, from REPORTS_BUCKET."""

    def open(self) -> S3Storage:
        """Return the bucket; raises `ConfigurationError` if REPORTS_BUCKET is missing or boto3's variables are invalid.

        This makes no request: if the bucket does not exist, the first call on it fails.
        """
        return open_storage(get_settings().storage.bucket)


class CloudFrontResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The page behind CloudFront, from CLOUDFRONT_URL."""

    def page(self) -> CloudFrontPage:
        """Return the page; raises `ConfigurationError` if the variable is missing."""
        return CloudFrontPage(get_settings().cloudfront.url)


class InternalApiResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The internal status API, from INTERNAL_API_URL and INTERNAL_API_KEY."""

    def api(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> InternalApi:
        """Return the API client; raises `ConfigurationError` naming the variable that is missing."""
        return InternalApi(get_settings().internal_api, timeout_seconds)


class PostHogResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The PostHog project, from POSTHOG_HOST and POSTHOG_API_KEY."""

    def project(self) -> PostHog | None:
        """Return the project, or None if no key is set; raises `ConfigurationError` if a variable is invalid."""
        settings = get_settings().posthog
        return PostHog(settings.host, settings.key) if settings.key is not None else None


class HeartbeatResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The uptime monitor at HEARTBEAT_URL; if that is not set, a ping does nothing."""

    def ping(self, *, alerts_delivered: bool, summary: str = "") -> str | None:
        """Ping the monitor; see `healthcheck_ping.ping`."""
        url = get_settings().heartbeat.url
        if url is None:
            return None
        return healthcheck_ping.ping(url.get_secret_value(), alerts_delivered=alerts_delivered, summary=summary)
