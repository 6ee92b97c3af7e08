"""The two timeouts that keep a frozen or waiting client from holding up others, in force through a pooler too.

PostgreSQL ends a transaction whose client is silent, and a statement that waits for a lock. Connected directly, both
are set for the session when it starts. PgBouncer refuses or drops that, and may give each transaction another session:
then both are set at the beginning of each transaction.
See docs/decisions/pgbouncer.md.
"""

from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event, text

from seedtrust_ops.errors import ConfigurationError

GUARDS = {"idle_in_transaction_session_timeout": 10, "lock_timeout": 20}
"""In seconds. A frozen worker must not hold its locks past its lease, or no other worker could take over its batch. A
statement waits for a lock twice as long as a silent transaction can hold one."""
_REFUSED_OPTIONS = "unsupported startup parameter"
"""What PgBouncer says of `options`, unless its `ignore_startup_parameters` lists it."""
READ_GUARDS = """
    select extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)::int,
           extract(epoch from current_setting('lock_timeout')::interval)::int
"""
"""Selects the values in force, in the order of GUARDS and in seconds."""


def set_guards(engine: Engine) -> None:
    """Keep both guards in force in every transaction of an engine for psycopg."""
    is_pooled = False

    def connect(dialect: Any, _record: object, _arguments: object, parameters: dict[str, Any]) -> Any:
        nonlocal is_pooled
        given = parameters.get("options", "")
        guards = " ".join(f"-c {name}={seconds}s" for name, seconds in GUARDS.items())
        if not is_pooled:
            try:
                return dialect.connect(**{**parameters, "options": f"{given} {guards}".strip()})
            except psycopg.OperationalError as error:
                if _REFUSED_OPTIONS not in str(error):
                    raise
                is_pooled = True
        return dialect.connect(**parameters)

    def inspect(connection: psycopg.Connection, _record: object) -> None:
        nonlocal is_pooled
        if not is_pooled:
            with connection.cursor() as cursor:
                is_pooled = cursor.execute(READ_GUARDS.encode()).fetchone() != tuple(GUARDS.values())
            connection.rollback()
        if is_pooled:
            # The statements that one client prepares could be run by another client of the same session.
            connection.prepare_threshold = None

    def begin(connection: Connection) -> None:
        if is_pooled:
            settings = (f"set_config('{name}', '{seconds}s', true)" for name, seconds in GUARDS.items())
            connection.exec_driver_sql(f"select {', '.join(settings)}")

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", inspect)
    event.listen(engine, "begin", begin)


def require_guards(connection: Connection) -> None:
    """Verify that both guards are in force in this transaction.

    Raises:
        ConfigurationError: if not, with what to change.
    """
    found = dict(zip(GUARDS, connection.execute(text(READ_GUARDS)).one(), strict=True))
    if found != GUARDS:
        values = " and ".join(f"{name} is {seconds} s" for name, seconds in found.items() if seconds != GUARDS[name])
        raise ConfigurationError(
            f"The database does not keep the timeouts of our transactions: {values}. A frozen worker could hold its "
            "locks for good. Let SEEDTRUST_DATABASE_URL name PostgreSQL itself, or PgBouncer in session or transaction "
            "mode."
        )
