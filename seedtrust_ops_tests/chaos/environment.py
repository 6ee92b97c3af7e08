"""The ground that chaos is let loose on: one PostgreSQL, one mail server, and a fresh database and bank for each case.

The tests take the servers from their session, `make chaos` starts its own; what is broken on them, and what must
hold afterwards, is not decided here.
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
from seedtrust_ops_tests.chaos.bank_pool import FreshBanks


@dataclass(frozen=True)
class Ground:
    """Servers that outlive a case.

    `template` is a database with the platform's tables and schema `ops`; `folder` is for files such as a
    bank's; `mailbox` is None where no letter is sent.
    """

    postgres_server: URL
    template: str
    banks: FreshBanks
    mailbox: MailboxProcess | None
    field_key: str
    folder: Path

    @property
    def cipher(self) -> FernetFieldCipher:
        """What encrypts account numbers in every case's database."""
        return FernetFieldCipher([SecretStr(self.field_key)])

    @contextmanager
    def database(self, *, template: str | None = None, name: str | None = None) -> Iterator[URL]:
        """A fresh copy of `template`, dropped afterwards, whoever is still connected."""
        name = name or f"chaos_{secrets.token_hex(6)}"
        control = create_engine(
            self.postgres_server.set(drivername="postgresql+psycopg", database="postgres"),
            isolation_level="AUTOCOMMIT",
            # The server may have been restarted since.
            poolclass=NullPool,
        )
        try:
            with control.connect() as connection:
                connection.execute(text(f"create database {name} template {template or self.template}"))
            yield self.postgres_server.set(drivername="postgresql+psycopg", database=name)
        finally:
            with control.connect() as connection:
                connection.execute(text(f"drop database if exists {name} with (force)"))
            control.dispose()
