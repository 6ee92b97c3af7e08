"""The Dagster resources: each opens one client from the settings, and shows in the UI which settings those are.

The fields are for people only. The clients are built from the environment, and a run whose configuration gives a field
another value is refused: a person who can launch runs must not be able to send the bank's API key to another server.
The clients themselves are in `resources` and `database`, which do not import Dagster so that the watchdog can use them.
See docs/decisions/resource-fields.md.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import Field
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import Settings, get_settings
from seedtrust_ops.config.external_services import (
    CloudFrontSettings,
    HuntingtonSettings,
    InternalApiSettings,
    MailSettings,
    PostHogSettings,
    StorageSettings,
)
from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.database.engine import application_engine, application_sessions
from seedtrust_ops.errors import ConfigurationError, RunConfigRefused
from seedtrust_ops.orchestration.io_manager import in_memory_io_manager
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.component_status import TIMEOUT_SECONDS, CloudFrontPage, InternalApi
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.resources.s3_storage import S3Storage, open_storage
from seedtrust_ops.resources.smtp import SMTP_TIMEOUT_SECONDS, SmtpTransport, open_smtp_transport


def _setting(group: type[SettingsGroup], name: str) -> Any:
    """Return a resource's field that shows a setting of `group`; its type must allow None, for an unset variable."""
    field = group.model_fields[name]
    return _fact(str(field.validation_alias), str(field.description))


def _fact(variable: str, description: str) -> Any:
    """Return a resource's field that shows a fact about a variable, such as whether it is set."""
    return Field(default=None, description=f"{variable}: {description}", json_schema_extra={"variable": variable})


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """A resource whose fields show settings of the environment; no field holds a secret."""

    key: ClassVar[str]
    """The resource's name in the code location."""

    configuration_error: str | None = Field(
        default=None,
        description="Which variable is missing or invalid. Jobs that use this resource fail and say the same.",
    )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the resource with its fields filled in; all are None if a variable is missing or invalid."""
        try:
            return cls(**cls._read_fields(settings))
        except ConfigurationError as error:
            return cls(configuration_error=str(error))

    @classmethod
    @abstractmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        """Return the values of the fields; raises `ConfigurationError` if a variable is missing or invalid."""

    @classmethod
    def _same_named(cls, group: SettingsGroup) -> dict[str, Any]:
        """Return the settings of `group` that have a field of the same name."""
        return {name: getattr(group, name) for name in type(group).model_fields if name in cls.model_fields}

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Log the settings to the run's page.

        Raises:
            RunConfigRefused: if the run's configuration gives a field another value than the environment.
        """
        if context.run is None:
            return
        in_effect = self.from_settings(get_settings())
        # A process that was forked from one with other variables still has the fields that were loaded there.
        loaded = context.resource_def.config_schema.default_value
        values = {name: getattr(in_effect, name) for name in type(self).model_fields}
        for name, value in values.items():
            # The error is not a setting: the launchpad of a time when a variable was missing repeats it.
            if name != "configuration_error" and getattr(self, name) not in (None, value, loaded.get(name)):
                raise RunConfigRefused(self._describe_refusal(name))
        if context.log is not None:
            shown = ", ".join(f"{name}: {value}" for name, value in values.items() if value is not None)
            context.log.info(f"Resource {self.key}: {shown}.")

    @classmethod
    def _describe_refusal(cls, name: str) -> str:
        extra = cls.model_fields[name].json_schema_extra
        remedy = f" Set {extra['variable']} in the environment instead." if isinstance(extra, dict) else ""
        # The value is not repeated: a run's configuration can read any variable, a secret one too.
        return (
            f"This run's configuration gives {name} of resource {cls.key} another value than the environment, which no "
            f"run may do. No work was done.{remedy} If the setting has changed since this run was configured, launch "
            f"it again without resources.{cls.key}."
        )


class DatabaseResource(SettingsResource):
    """The application database, from SEEDTRUST_DATABASE_URL."""

    key = "database"
    embedded: bool | None = _fact("SEEDTRUST_DATABASE_URL", "whether it is unset, so that the embedded server is used")
    host: str | None = _fact("SEEDTRUST_DATABASE_URL", "the host in the URL")
    port: int | None = _fact("SEEDTRUST_DATABASE_URL", "the port in the URL")
    database: str | None = _fact("SEEDTRUST_DATABASE_URL", "the database in the URL")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        url = settings.databases.application_url
        if url is None:
            return {"embedded": True}
        host = url.host or url.query.get("host")
        return {
            "embedded": False,
            "host": host if isinstance(host, str | None) else ", ".join(host),
            "port": url.port,
            "database": url.database,
        }

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
        return sessionmaker(self.engine(), expire_on_commit=False)

    def engine(self) -> Engine:
        """Return an engine whose transactions are read-only."""
        engine = super().engine().execution_options(postgresql_readonly=True)
        # PostgreSQL makes transactions read-only, and with AUTOCOMMIT there are none.
        for options_set in ("set_connection_execution_options", "set_engine_execution_options"):
            event.listen(engine, options_set, _refuse_autocommit)
        return engine


def _refuse_autocommit(_connectable: Any, options: Mapping[str, Any]) -> None:
    if options.get("isolation_level") == "AUTOCOMMIT":
        raise TypeError("A job that only reads can't use AUTOCOMMIT, because its statements could write.")


class HuntingtonResource(SettingsResource):
    """The Huntington transfer gateway, from the HUNTINGTON_* variables."""

    key = "huntington"
    api_url: str | None = _setting(HuntingtonSettings, "api_url")
    funding_account_id: str | None = _setting(HuntingtonSettings, "funding_account_id")
    concurrency: int | None = _setting(HuntingtonSettings, "concurrency")
    timeout_seconds: float | None = _setting(HuntingtonSettings, "timeout_seconds")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return cls._same_named(settings.huntington)

    @property
    def settings(self) -> HuntingtonSettings:
        """The bank settings; raises `ConfigurationError` naming the variable that is missing."""
        return get_settings().huntington

    def open(self) -> AbstractAsyncContextManager[HuntingtonBank]:
        """Open the bank client for the duration of a `with` block."""
        return open_huntington_bank(self.settings)


class FieldCipherResource(SettingsResource):
    """The cipher for encrypted columns, from SEEDTRUST_FIELD_KEY."""

    key = "field_cipher"
    key_count: int | None = _fact("SEEDTRUST_FIELD_KEY", "the number of keys")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return {"key_count": len(settings.field_keys.keys)}

    def cipher(self) -> FernetFieldCipher:
        """Return the cipher; raises `ConfigurationError` if the key is missing or not a Fernet key."""
        return FernetFieldCipher(get_settings().field_keys.keys)


class MailResource(SettingsResource):
    """The mail server, from the SMTP_* variables and EMAIL_FROM."""

    key = "mail"
    host: str | None = _setting(MailSettings, "host")
    port: int | None = _setting(MailSettings, "port")
    starttls: bool | None = _setting(MailSettings, "starttls")
    email_from: str | None = _setting(MailSettings, "email_from")
    has_login: bool | None = _fact(
        "SMTP_USERNAME", "whether it is set; some mail servers use a secret as the login name"
    )

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        group = settings.mail
        return {**cls._same_named(group), "has_login": group.username is not None}

    @contextmanager
    def open(self, *, timeout_seconds: float = SMTP_TIMEOUT_SECONDS) -> Iterator[SmtpTransport]:
        """Yield the mail server; raises `ConfigurationError` naming the variable that is missing."""
        with open_smtp_transport(get_settings().mail, timeout_seconds=timeout_seconds) as transport:
            yield transport


class StorageResource(SettingsResource):
    """The S3 bucket for reports and other files, from REPORTS_BUCKET."""

    key = "storage"
    bucket: str | None = _setting(StorageSettings, "bucket")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return cls._same_named(settings.storage)

    def open(self) -> S3Storage:
        """Return the bucket; raises `ConfigurationError` if REPORTS_BUCKET is missing or boto3's variables are invalid.

        This makes no request: if the bucket does not exist, the first call on it fails.
        """
        return open_storage(get_settings().storage.bucket)


class CloudFrontResource(SettingsResource):
    """The page behind CloudFront, from CLOUDFRONT_URL."""

    key = "cloudfront"
    url: str | None = _setting(CloudFrontSettings, "url")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return cls._same_named(settings.cloudfront)

    def page(self) -> CloudFrontPage:
        """Return the page; raises `ConfigurationError` if the variable is missing."""
        return CloudFrontPage(get_settings().cloudfront.url)


class InternalApiResource(SettingsResource):
    """The internal status API, from INTERNAL_API_URL and INTERNAL_API_KEY."""

    key = "internal_api"
    url: str | None = _setting(InternalApiSettings, "url")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return cls._same_named(settings.internal_api)

    def api(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> InternalApi:
        """Return the API client; raises `ConfigurationError` naming the variable that is missing."""
        return InternalApi(get_settings().internal_api, timeout_seconds)


class PostHogResource(SettingsResource):
    """The PostHog project, from POSTHOG_HOST and POSTHOG_API_KEY."""

    key = "posthog"
    host: str | None = _setting(PostHogSettings, "host")
    enabled: bool | None = _fact("POSTHOG_API_KEY", "whether it is set, so that events are sent")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        group = settings.posthog
        return {**cls._same_named(group), "enabled": group.key is not None}

    def project(self) -> PostHog | None:
        """Return the project, or None if no key is set; raises `ConfigurationError` if a variable is invalid."""
        settings = get_settings().posthog
        return PostHog(settings.host, settings.key) if settings.key is not None else None


class HeartbeatResource(SettingsResource):
    """The uptime monitor at HEARTBEAT_URL; if that is not set, a ping does nothing."""

    key = "heartbeat"
    enabled: bool | None = _fact("HEARTBEAT_URL", "whether it is set, so that pings are sent")

    @classmethod
    def _read_fields(cls, settings: Settings) -> dict[str, Any]:
        return {"enabled": settings.heartbeat.url is not None}

    def ping(self, *, alerts_delivered: bool, summary: str = "") -> str | None:
        """Ping the monitor; see `healthcheck_ping.ping`. An invalid HEARTBEAT_URL is an error text as well."""
        try:
            url = get_settings().heartbeat.url
        except ConfigurationError as error:
            return f"{error} The monitor was not pinged."
        if url is None:
            return None
        return healthcheck_ping.ping(url.get_secret_value(), alerts_delivered=alerts_delivered, summary=summary)


RESOURCES: tuple[type[SettingsResource], ...] = (
    CloudFrontResource,
    DatabaseResource,
    FieldCipherResource,
    HeartbeatResource,
    HuntingtonResource,
    InternalApiResource,
    MailResource,
    PostHogResource,
    StorageResource,
)


def resources() -> dict[str, Any]:
    """Return the code location's resources by key, with fields that show this process's settings."""
    settings = get_settings()
    return {
        **{resource.key: resource.from_settings(settings) for resource in RESOURCES},
        # Return values are small and go into JobRun; no run writes pickle files.
        "io_manager": in_memory_io_manager,
    }
