"""The URLs of the two databases: the applications' and Dagster's own.

Engines are created in `database/engine.py`.
See docs/decisions/embedded-postgres.md.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from seedtrust_ops.config.plaintext import VERIFIED_SSLMODE, is_verified_or_local, libpq_parameters
from seedtrust_ops.config.settings_base import SettingsGroup

_SEVERAL_HOSTS = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<user>[^/?#]*@)?(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<rest>[/?#].*)?", re.DOTALL
)
"""libpq's form for a database with standbys, `postgresql://user@host1:5432,host2:5432/name`."""
_WRITABLE = {"target_session_attrs": "read-write"}
"""libpq's option to connect to whichever of several hosts accepts writes: after a failover, to another one."""


def _make_url(text: str) -> URL:
    """Return the URL of libpq's or SQLAlchemy's form; with several hosts, the one that accepts writes is used."""
    several = _SEVERAL_HOSTS.fullmatch(text)
    if several is None:
        url = make_url(text)
    else:
        hosts = tuple(several["hosts"].split(","))
        url = make_url(f"{several['scheme']}://{several['user'] or ''}{several['rest'] or ''}")
        url = url.update_query_dict({"host": hosts})
    if isinstance(url.query.get("host"), tuple):
        url = url.set(query={**_WRITABLE, **url.query})
    return url


def _postgres_url(text: str | None, driver: str) -> URL | None:
    if text is None:
        return None
    try:
        url = _make_url(text)
        libpq_parameters(url.set(drivername=f"postgresql+{driver}"))
    except (ArgumentError, ValueError):
        # `from None`: SQLAlchemy's message quotes what it took for the port, which may be part of the password.
        raise ValueError("it is not a database URL like postgresql://user:password@host:5432/name") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"it is a {url.get_backend_name()} URL, but only PostgreSQL is supported")
    return url.set(drivername=f"postgresql+{driver}")


class DatabaseSettings(SettingsGroup):
    """The URLs of the databases; None means the embedded server (laptops, demo and tests).

    A URL may name several hosts, as libpq's do: `postgresql://user:password@host1:5432,host2:5432/name`. Bare
    `postgresql://` URLs work. The driver is added here, because SQLAlchemy 2.1 uses psycopg 3 for a bare URL while
    dagster-postgres imports psycopg2.
    """

    application_url_text: SecretStr | None = Field(
        default=None,
        validation_alias="SEEDTRUST_DATABASE_URL",
        description="the URL of the PostgreSQL database of SeedTrust's applications",
    )
    dagster_url_text: SecretStr | None = Field(
        default=None,
        validation_alias="DAGSTER_POSTGRES_URL",
        description="the URL of the PostgreSQL database that stores Dagster's runs, events and schedules",
    )
    embedded_directory: ClassVar[Path] = Path("~/.seedtrust/postgres")

    @field_validator("application_url_text", "dagster_url_text")
    @classmethod
    def _require_postgres(cls, text: SecretStr | None) -> SecretStr | None:
        _postgres_url(text.get_secret_value() if text else None, "psycopg")
        return text

    def find_plaintext(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        urls = {"SEEDTRUST_DATABASE_URL": self.application_url, "DAGSTER_POSTGRES_URL": self.dagster_url}
        reason = (
            f"it reaches another machine without sslmode={VERIFIED_SSLMODE}, so anybody on the way could read it or "
            f"pretend to be the database. Add ?sslmode={VERIFIED_SSLMODE}, and sslrootcert with the file of the "
            "authority that signed the database's certificate"
        )
        return {
            variable: reason
            for variable, url in urls.items()
            if url is not None and not is_verified_or_local(url, environment)
        }

    @property
    def application_url(self) -> URL | None:
        """The URL of the application's database, with driver psycopg 3."""
        text = self.application_url_text
        return _postgres_url(text.get_secret_value() if text else None, "psycopg")

    @property
    def dagster_url(self) -> URL | None:
        """The URL of Dagster's database, with driver psycopg2."""
        text = self.dagster_url_text
        return _postgres_url(text.get_secret_value() if text else None, "psycopg2")
