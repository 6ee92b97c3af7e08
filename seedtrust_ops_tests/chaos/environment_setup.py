"""Starts an environment for `make chaos`: a PostgreSQL with the template database, a bank pool and a mail server.

The tests do not use it: their session has all of these.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.fernet import Fernet
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops_tests.chaos.bank_pool import serve_bank_pool
from seedtrust_ops_tests.chaos.environment import ChaosEnvironment
from seedtrust_ops_tests.support.databases import create_platform_schema, postgres_folder

TEMPLATE = "platform_template"


@contextmanager
def start_environment() -> Iterator[ChaosEnvironment]:
    """Start servers for this run alone and stop them at the end."""
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "postgres")
        try:
            prepare_server(server)
            with (
                serve_bank_pool(folder) as banks,
                start_mailbox(folder / "mailbox.sqlite") as mailbox,
            ):
                yield ChaosEnvironment(server, TEMPLATE, banks, mailbox, Fernet.generate_key().decode(), folder)
        finally:
            embedded_postgres.stop(folder / "postgres")


def prepare_server(server: URL) -> None:
    """Create the template database. The server does not wait for its disk, because no test cuts its power."""
    admin_engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin_engine.connect() as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(text(f"alter system set {setting} = off"))
        connection.execute(text("select pg_reload_conf()"))
    admin_engine.dispose()
    template = embedded_postgres.ensure_database(server, TEMPLATE)
    create_platform_schema(template)
    engine = create_engine(template)
    # Some cases have batches of the legacy worker.
    migrate(engine, legacy_worker_runs=True)
    engine.dispose()
