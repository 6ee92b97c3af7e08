"""Sets the letters that ours would have written beside those in the mail provider's log.

The legacy systems leave no trace of a letter in the database, so that without the log nothing can be said of them.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from seedtrust_ops.domain.shadow_mode.comparison.models import (
    Comparison,
    Period,
    decisions_of,
    looked_at,
    never_looked,
)
from seedtrust_ops.domain.shadow_mode.decision_reader import WRITE_LETTER
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import User

KINDS = {
    "case_close_reminders": "case-close",
    "account_balance_reminders": "balance-reminder",
}
COLUMNS = ("sent_at", "kind", "to")
NO_LOG = (
    "letters leave no trace in the database: give the mail provider's log of the legacy letters with --letters "
    "(a CSV file with the columns sent_at, kind and to)"
)


class UnreadableLetterLog(SeedTrustError):
    """The file is no log of letters."""


@dataclass(frozen=True)
class SentLetter:
    """A letter that the legacy systems sent; `kind` is ours, such as case-close."""

    sent_at: datetime
    kind: str
    recipient_email: str


def read_letter_log(lines: Iterable[str]) -> list[SentLetter]:
    """Return the letters of a CSV file with the columns sent_at (ISO 8601 with its zone), kind and to.

    Raises:
        UnreadableLetterLog: naming the line and what is wrong with it.
    """
    rows = csv.DictReader(lines)
    if not set(COLUMNS) <= set(rows.fieldnames or ()):
        raise UnreadableLetterLog(f"The log of letters needs the columns {', '.join(COLUMNS)} in its first line.")
    letters = []
    for number, row in enumerate(rows, start=2):
        try:
            sent_at = datetime.fromisoformat(row["sent_at"])
        except (TypeError, ValueError):
            sent_at = None
        if sent_at is None or sent_at.tzinfo is None or row["kind"] not in KINDS.values() or not row["to"]:
            raise UnreadableLetterLog(
                f"Line {number} of the log of letters can't be read: sent_at is a time like 2026-11-24T06:00:00-05:00, "
                f"kind is one of {', '.join(KINDS.values())}, and to is an address."
            )
        letters.append(SentLetter(sent_at, row["kind"], row["to"].strip().lower()))
    return letters


def compare_letters(
    session: Session, job: str, period: Period, sent: Iterable[SentLetter] | None, zone: tzinfo
) -> Comparison:
    """Compare by kind, recipient and day of the office, letter for letter."""
    judged = looked_at(session, job, period)
    if judged is None:
        return never_looked(job)
    if sent is None:
        return Comparison(job, note=NO_LOG)
    comparison = Comparison(job)
    decisions = [one for one in decisions_of(session, job, judged) if one.decision == WRITE_LETTER]
    recipients = [one.detail["recipient_id"] for one in decisions]
    numbers = dict(session.execute(select(User.id, User.email).where(in_array(User.id, recipients))).all())
    by_address = {email.lower(): number for number, email in numbers.items()}
    ours: Counter[tuple[str, date]] = Counter()
    newest: dict[tuple[str, date], datetime] = {}
    for one in decisions:
        key = (numbers[one.detail["recipient_id"]].lower(), one.first_seen_at.astimezone(zone).date())
        ours[key] += 1
        newest[key] = one.first_seen_at
    theirs = Counter(
        (letter.recipient_email, letter.sent_at.astimezone(zone).date())
        for letter in sent
        if letter.kind == KINDS[job] and judged.since <= letter.sent_at <= judged.settled
    )
    for key in sorted(ours.keys() | theirs.keys(), key=lambda one: (one[1], one[0])):
        both = min(ours[key], theirs[key])
        comparison.agreements += both
        who = f"user {by_address[key[0]]}" if key[0] in by_address else "somebody whom ours would not write to"
        subject = f"{KINDS[job]} to {who} on {key[1]}"
        if theirs[key] > both:
            comparison.differ(subject, f"{ours[key]} letters", f"{theirs[key]} letters", "ours would not have written")
        elif ours[key] > both and newest[key] > judged.settled:
            comparison.waiting += ours[key] - both
        elif ours[key] > both:
            comparison.differ(subject, f"{ours[key]} letters", f"{theirs[key]} letters", "it is not in the log")
    return comparison
