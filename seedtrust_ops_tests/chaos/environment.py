"""The chaos suite's environment: one PostgreSQL, one mail server, and a fresh database and bank for each case.

Tests use their session's servers (`conftest`); `make chaos` starts its own (`environment_setup`). Faults and checks
are defined elsewhere.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops_tests.chaos.bank_pool import BankPool


@dataclass(frozen=True)
class ChaosEnvironment:
    """The servers that all cases share.

    `template` is a database with the platform's tables and schema `ops`; `folder` holds files such as a bank's
    database; `mailbox` is None if no email is sent.
    """

    postgres_server: URL
    template: str
    banks: BankPool
    mailbox: MailboxProcess | None
    field_key: str
    folder: Path

    @property
    def cipher(self) -> FernetFieldCipher:
        """Encrypts account numbers in every case's database."""
        return FernetFieldCipher([SecretStr(self.field_key)])

    @contextmanager
    def database(self, *, template: str | None = None, name: str | None = None) -> Iterator[URL]:
        """A fresh copy of `template`, dropped at the end even if something is still connected."""
        name = name or f"chaos_{secrets.token_hex(6)}"
        admin_engine = create_engine(
            self.postgres_server.set(drivername="postgresql+psycopg", database="postgres"),
            isolation_level="AUTOCOMMIT",
            # No pooled connections: the server may have been restarted since.
            poolclass=NullPool,
        )
        try:
            with admin_engine.connect() as connection:
                connection.execute(text(f"create database {name} template {template or self.template}"))
            yield self.postgres_server.set(drivername="postgresql+psycopg", database=name)
        finally:
            with admin_engine.connect() as connection:
                connection.execute(text(f"drop database if exists {name} with (force)"))
            admin_engine.dispose()
