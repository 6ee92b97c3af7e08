"""What the commands share by which a person intervenes: the options `--as` and `--reason`, and the audited transaction.

`domain/audit.py` says what the audit records of the person.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from seedtrust_ops.errors import SeedTrustError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from seedtrust_ops.domain.audit import Operator

As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="EMAIL",
        help="Your email address as a user of the platform. It is recorded beside your login name, and not verified.",
    ),
]
Reason = Annotated[str, typer.Option(help="Why. Recorded in the audit.")]
_INSUFFICIENT_PRIVILEGE = "42501"


class NotAnOperator(SeedTrustError):
    """The database login in SEEDTRUST_DATABASE_URL lacks the privileges of an operator."""


def current_operator(email: str | None) -> "Operator":
    """Return the person who runs this command, with the email address that they gave."""
    from getpass import getuser

    from seedtrust_ops.domain.audit import Operator

    return Operator(getuser(), email)


@contextmanager
def open_operator_session(operator: "Operator", reason: str = "") -> "Iterator[Session]":
    """Yield a session in one transaction, whose changes the database audits as `operator`'s, and commit it."""
    from sqlalchemy.exc import ProgrammingError

    from seedtrust_ops.database.engine import application_engine, application_sessions, translate_database_errors
    from seedtrust_ops.domain.audit import attest

    url = application_engine().url
    with translate_database_errors(url):
        try:
            with application_sessions().begin() as session:
                attest(session, operator, reason)
                yield session
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
                raise
            raise NotAnOperator(
                f"The database login {url.username} may not do this. Nothing was changed. Set SEEDTRUST_DATABASE_URL "
                "to a login that is a member of seedtrust_ops_operator."
            ) from None
