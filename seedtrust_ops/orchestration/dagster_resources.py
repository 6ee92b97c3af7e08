"""What `defs` hands to the ops as Dagster resources: each opens one client from the environment's settings.

The clients themselves are in `resources` and `database`, which import no Dagster so that the watchdog can use them.
"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import dagster as dg
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import HuntingtonSettings, get_settings
from seedtrust_ops.database.engine import application_engine, application_sessions
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.cloudfront import CloudFrontPage
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.internal_api_client import TIMEOUT_SECONDS, InternalApi
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.resources.s3_storage import S3Storage, open_storage
from seedtrust_ops.resources.smtp import ANSWER_SECONDS, SmtpPostOffice, open_post_office


class DatabaseResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The database of SeedTrust's applications, from SEEDTRUST_DATABASE_URL."""

    def sessions(self) -> sessionmaker[Session]:
        """Return the maker of sessions; see `application_engine` for what it raises."""
        return application_sessions()

    def engine(self) -> Engine:
        """Return this process's engine, for what needs a connection of its own."""
        return application_engine()


class HuntingtonResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Huntington transfer gateway, from the HUNTINGTON_* variables."""

    @property
    def settings(self) -> HuntingtonSettings:
        """How to reach the bank; raises `ConfigurationError` naming the variable that is missing."""
        return get_settings().huntington

    def open(self) -> AbstractAsyncContextManager[HuntingtonBank]:
        """Open connections to the bank for the length of a block."""
        return open_huntington_bank(self.settings)


class FieldCipherResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The cipher of encrypted columns, from SEEDTRUST_FIELD_KEY."""

    def cipher(self) -> FernetFieldCipher:
        """Return the cipher; raises `ConfigurationError` where the key is missing or no Fernet key."""
        return FernetFieldCipher(get_settings().field_keys.keys)


class MailResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The mail server of SMTP_HOST and its fellow variables."""

    @contextmanager
    def open(self, *, answer_seconds: float = ANSWER_SECONDS) -> Iterator[SmtpPostOffice]:
        """Yield the mail server; raises `ConfigurationError`, naming the variable, where one is missing."""
        with open_post_office(get_settings().mail, answer_seconds=answer_seconds) as office:
            yield office


class StorageResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The bucket of REPORTS_BUCKET."""

    def open(self) -> S3Storage:
        """Return the bucket; raises `ConfigurationError` where REPORTS_BUCKET is missing or boto3's variables are odd.

        No request is made: a bucket that does not exist is told by the first call.
        """
        return open_storage(get_settings().storage.bucket)


class CloudFrontResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The page of CLOUDFRONT_URL."""

    def page(self) -> CloudFrontPage:
        """Return the page; raises `ConfigurationError` where the variable is missing."""
        return CloudFrontPage(get_settings().cloudfront.url)


class InternalApiResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The API of INTERNAL_API_URL and INTERNAL_API_KEY."""

    def api(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> InternalApi:
        """Return the API; raises `ConfigurationError`, naming the variable, where one is missing."""
        return InternalApi(get_settings().internal_api, timeout_seconds)


class PostHogResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The project of POSTHOG_HOST and POSTHOG_API_KEY."""

    def project(self) -> PostHog | None:
        """Return the project, None where no key is set; raises `ConfigurationError` where a variable can't be used."""
        settings = get_settings().posthog
        return PostHog(settings.host, settings.key) if settings.key is not None else None


class HeartbeatResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The check at HEARTBEAT_URL; if that is not set, a ping does nothing."""

    def ping(self, *, telling_works: bool, words: str = "") -> str | None:
        """Ping the monitor; see `healthcheck_ping.ping`."""
        url = get_settings().heartbeat.url
        if url is None:
            return None
        return healthcheck_ping.ping(url.get_secret_value(), telling_works=telling_works, words=words)
