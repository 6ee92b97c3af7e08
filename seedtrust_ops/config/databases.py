"""Where the databases are: the applications' and Dagster's own, by the URLs that people write.

Engines are made in `resources`.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from seedtrust_ops.config.settings_base import SettingsGroup


def _postgres_url(text: str | None, driver: str) -> URL | None:
    if text is None:
        return None
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # `from None`: what SQLAlchemy found where it looked for the port may be part of the password.
        raise ValueError("it is not a database URL like postgresql://user:password@host:5432/name") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"it names {url.get_backend_name()}, and only PostgreSQL will do")
    return url.set(drivername=f"postgresql+{driver}")


class DatabaseSettings(SettingsGroup):
    """Where the databases are; None stands for the embedded server of laptops, the demo and the tests.

    People write bare `postgresql://` URLs. The driver is written in here, because SQLAlchemy 2.1 takes a
    bare one for psycopg 3 while dagster-postgres imports psycopg2.
    """

    application_url_text: SecretStr | None = Field(
        default=None,
        validation_alias="SEEDTRUST_DATABASE_URL",
        description="the PostgreSQL database of SeedTrust's applications",
    )
    dagster_url_text: SecretStr | None = Field(
        default=None,
        validation_alias="DAGSTER_POSTGRES_URL",
        description="the PostgreSQL database of Dagster's own storage",
    )
    embedded_directory: ClassVar[Path] = Path("~/.seedtrust/postgres")

    @field_validator("application_url_text", "dagster_url_text")
    @classmethod
    def _is_postgres(cls, text: SecretStr | None) -> SecretStr | None:
        _postgres_url(text.get_secret_value() if text else None, "psycopg")
        return text

    @property
    def application_url(self) -> URL | None:
        """The application's database with driver psycopg 3."""
        text = self.application_url_text
        return _postgres_url(text.get_secret_value() if text else None, "psycopg")

    @property
    def dagster_url(self) -> URL | None:
        """Dagster's database with driver psycopg2."""
        text = self.dagster_url_text
        return _postgres_url(text.get_secret_value() if text else None, "psycopg2")
