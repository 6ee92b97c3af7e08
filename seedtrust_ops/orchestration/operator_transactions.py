"""The transaction of a job by which a person intervenes: audited as that person's, and refused to other logins.

The commands have their own (`cli/operator_session`). A job has the login of the process that runs it: in production
that is the jobs' role, which may not do what operators do (docs/decisions/operator-jobs.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser

from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from seedtrust_ops.domain.audit import Operator, attest
from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.errors import InputError

_INSUFFICIENT_PRIVILEGE = "42501"


class LoginMayNotIntervene(InputError):
    """The database login of the process that ran the job lacks the privileges of an operator."""


class ReasonMissing(InputError):
    """A person launched the job without saying why, or who they are."""


def require_person(operator: str, reason: str) -> Operator:
    """Return who launched the job: the email address that they gave, beside the login name of the process."""
    if not operator.strip() or not reason.strip():
        raise ReasonMissing(
            "No operator or no reason was given. Nothing was changed. Open this run in the launchpad, enter your email "
            "address and why, and launch it."
        )
    return Operator(getuser(), operator.strip())


@contextmanager
def open_operator_transaction(sessions: Sessions, operator: Operator, reason: str, command: str) -> Iterator[Session]:
    """Yield a session in one transaction, whose changes the database audits as `operator`'s, and commit it.

    Raises:
        LoginMayNotIntervene: if the database refuses it to this login; `command` is what to run instead.
        UnknownOperator: if no active user has the operator's email address.
    """
    try:
        with sessions.begin() as session:
            attest(session, operator, reason)
            yield session
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise LoginMayNotIntervene(
            "The database login of this worker is the jobs' and may not do what an operator does, so nothing was "
            f"changed: run `{command}` with your own login."
        ) from None
