"""Who is emailed about a case when something went wrong: the first in the chain of people who has an active account.

The chain is pinned: escrow specialist, case manager, all active admins, `ALERT_EMAILS`. Which events go along it is
decided where they happen.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.outbox.email_sink import NOTIFICATIONS_FAILING
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.email_addresses import is_email_address
from seedtrust_ops.tables import Case, User

MAX_LISTED = 20
"""An alert names at most this many records."""


@dataclass(frozen=True)
class Recipient:
    """A person to email; `user_id` is None for an address of `ALERT_EMAILS`."""

    user_id: int | None
    email: str

    @property
    def key(self) -> str:
        """The part of a dedupe key that stands for the person."""
        return self.email if self.user_id is None else str(self.user_id)


def find_responsible(
    session: Session, case_ids: Collection[int], alert_emails: Sequence[str]
) -> Mapping[int | None, Sequence[Recipient]]:
    """Return whom to email about each case, and about something that belongs to no case (None).

    A person whose address can't be emailed is followed by the next in the chain: the email to the former fails, which
    opens an alert, and the latter knows. If the list of a case is empty, there is no active person and no address, and
    the caller reports that with `alert_nobody_to_notify`.
    """
    specialist, manager = aliased(User), aliased(User)
    rows = session.execute(
        select(Case.id, specialist.id, specialist.email, manager.id, manager.email)
        .outerjoin(specialist, (specialist.id == Case.escrow_specialist_id) & specialist.is_active)
        .outerjoin(manager, (manager.id == Case.case_manager_id) & manager.is_active)
        .where(in_array(Case.id, case_ids))
    ).all()
    others = find_admins(session, alert_emails)
    found: dict[int | None, Sequence[Recipient]] = {None: others} | dict.fromkeys(case_ids, others)
    for case_id, specialist_id, specialist_email, manager_id, manager_email in rows:
        people = ((specialist_id, specialist_email), (manager_id, manager_email))
        chain = [Recipient(*person) for person in people if person[0] is not None]
        reachable = [number for number, one in enumerate(chain) if is_email_address(one.email)]
        found[case_id] = chain[: reachable[0] + 1] if reachable else [*chain, *others]
    return found


def find_admins(session: Session, alert_emails: Sequence[str]) -> Sequence[Recipient]:
    """Return all active admins, and the addresses in `alert_emails` if none of them can be emailed."""
    admins = session.execute(
        select(User.id, User.email).where(User.role == "admin", User.is_active).order_by(User.id)
    ).all()
    recipients = [Recipient(*row) for row in admins]
    if not any(is_email_address(one.email) for one in recipients):
        recipients += [Recipient(None, address) for address in alert_emails]
    return recipients


def alert_nobody_to_notify(session: Session, kind: str, what: str, ids: Sequence[int]) -> None:
    """Open the alert that nobody could be sent an email of `kind` about `what`, the records with these ids."""
    listed = ", ".join(map(str, ids[:MAX_LISTED]))
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    open_alert(
        session,
        NOTIFICATIONS_FAILING,
        _subject(kind),
        "HIGH",
        f"Nobody could be emailed about {what} (id {listed}{more}): no user who is responsible is active. Find out who "
        "is, and notify them. Give the case an active escrow specialist or case manager in the platform.",
    )


def resolve_nobody_to_notify(session: Session, kind: str) -> None:
    """Resolve that alert, because everything that is due has a recipient again."""
    resolve_alert(session, NOTIFICATIONS_FAILING, _subject(kind))


def _subject(kind: str) -> str:
    return f"{kind} emails without a recipient"
