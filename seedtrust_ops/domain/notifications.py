"""Letters as an outbox: rows written in the transaction that causes them.

Delivery is not here. A letter's `dedupe_key` names what it is about and for whom, so that no letter is
written twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from seedtrust_ops.tables import Notification


@dataclass(frozen=True)
class Letter:
    """One letter to one active user; `variables` are what its template needs."""

    dedupe_key: str
    kind: str
    recipient_id: int
    recipient_email: str
    subject: str
    variables: dict[str, Any] = field(default_factory=dict)


def queue_letters(session: Session, letters: Sequence[Letter]) -> int:
    """Put `letters` into the outbox and return how many were new."""
    if not letters:
        return 0
    rows = [
        {
            "dedupe_key": letter.dedupe_key,
            "kind": letter.kind,
            "recipient_id": letter.recipient_id,
            "recipient_email": letter.recipient_email,
            "subject": letter.subject,
            "variables": letter.variables,
        }
        for letter in letters
    ]
    new = session.scalars(
        insert(Notification)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["dedupe_key"])
        .returning(Notification.id)
    )
    return len(new.all())
