"""Who runs a command, for the rows that the database's triggers write into `ops.audit_events`.

The database itself records its login. What is added here is attestation, not authentication: a person says who they
are, and anybody with the same login could say so. See docs/decisions/database-guards.md.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import User


class UnknownOperator(SeedTrustError):
    """The person who runs a command claims to be somebody who is not an active user."""


@dataclass(frozen=True)
class Operator:
    """A person who runs a command: the login name on their machine, and the email address that they gave."""

    os_user: str
    email: str | None = None

    @property
    def name(self) -> str:
        """The name that is shown to others."""
        return self.email or self.os_user


def attest(session: Session, operator: Operator, reason: str = "") -> None:
    """Tell the audit triggers, for this transaction, who acts and why.

    Raises:
        UnknownOperator: if no active user has the operator's email address.
    """
    if operator.email is not None:
        found = session.scalar(select(User.email).where(User.email == operator.email, User.is_active))
        if found is None:
            raise UnknownOperator(
                f"No active user has the email address {operator.email}. Nothing was changed. Give your own, or leave "
                "--as out."
            )
    settings = {"os_user": operator.os_user, "as": operator.email or "", "reason": reason}
    session.execute(select(*(func.set_config(f"seedtrust.{name}", value, True) for name, value in settings.items())))
