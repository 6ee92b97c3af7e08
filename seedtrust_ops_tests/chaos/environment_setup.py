"""Starts a ground of its own for `make chaos`: a PostgreSQL with the template database, banks, a mail server.

The tests don't come here: they have all of that for their session.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops_tests.chaos.bank_pool import serve_fresh_banks
from seedtrust_ops_tests.chaos.environment import Ground
from seedtrust_ops_tests.support.databases import create_platform, folder_for_a_server

TEMPLATE = "platform_template"


@contextmanager
def own_ground() -> Iterator[Ground]:
    """Servers that nobody else uses, gone at the end."""
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "postgres")
        try:
            prepare_server(server)
            with (
                serve_fresh_banks(folder) as banks,
                start_mailbox(folder / "mailbox.sqlite") as mailbox,
            ):
                yield Ground(server, TEMPLATE, banks, mailbox, Fernet.generate_key().decode(), folder)
        finally:
            embedded_postgres.stop(folder / "postgres")


def prepare_server(server: URL) -> None:
    """Make the template database; nobody cuts this server's power, so it need not wait for its disk."""
    control = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with control.connect() as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(text(f"alter system set {setting} = off"))
        connection.execute(text("select pg_reload_conf()"))
    control.dispose()
    template = embedded_postgres.ensure_database(server, TEMPLATE)
    create_platform(template)
    engine = create_engine(template)
    migrate(engine)
    engine.dispose()
