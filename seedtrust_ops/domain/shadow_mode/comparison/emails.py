"""Compares the emails that our jobs would have sent with those in the mail provider's log.

The legacy systems leave no trace of an email in the database, so without the log they cannot be compared.
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
    ComparisonPeriod,
    decisions_in,
    evaluated_period,
    never_evaluated,
)
from seedtrust_ops.domain.shadow_mode.decision_reader import SEND_EMAIL
from seedtrust_ops.domain.sql_arrays import in_array
from seedtrust_ops.errors import SeedTrustError
from seedtrust_ops.tables import User

KIND_BY_JOB = {
    "case_close_reminders": "case-close",
    "account_balance_reminders": "balance-reminder",
}
LOG_COLUMNS = ("sent_at", "kind", "to")
NO_LOG = (
    "emails leave no trace in the database: pass the mail provider's log of the legacy emails with --emails "
    "(a CSV file with the columns sent_at, kind and to)"
)


class UnreadableEmailLog(SeedTrustError):
    """The file is not a valid email log."""


@dataclass(frozen=True)
class SentEmail:
    """An email that the legacy systems sent; `kind` is our notification kind, for example case-close."""

    sent_at: datetime
    kind: str
    recipient_email: str


def read_email_log(lines: Iterable[str]) -> list[SentEmail]:
    """Return the emails of a CSV file with the columns sent_at (ISO 8601 with a zone), kind and to.

    Raises:
        UnreadableEmailLog: names the line and what is wrong with it.
    """
    rows = csv.DictReader(lines)
    if not set(LOG_COLUMNS) <= set(rows.fieldnames or ()):
        raise UnreadableEmailLog(f"The email log needs the columns {', '.join(LOG_COLUMNS)} in its first line.")
    emails = []
    for number, row in enumerate(rows, start=2):
        try:
            sent_at = datetime.fromisoformat(row["sent_at"])
        except (TypeError, ValueError):
            sent_at = None
        if sent_at is None or sent_at.tzinfo is None or row["kind"] not in KIND_BY_JOB.values() or not row["to"]:
            raise UnreadableEmailLog(
                f"Line {number} of the email log is invalid: sent_at must be like 2026-11-24T06:00:00-05:00, kind "
                f"one of {', '.join(KIND_BY_JOB.values())}, and to an email address."
            )
        emails.append(SentEmail(sent_at, row["kind"], row["to"].strip().lower()))
    return emails


def compare_emails(
    session: Session, job: str, period: ComparisonPeriod, sent: Iterable[SentEmail] | None, zone: tzinfo
) -> Comparison:
    """Compare email by email, by kind, recipient and local day."""
    covered = evaluated_period(session, job, period)
    if covered is None:
        return never_evaluated(job)
    if sent is None:
        return Comparison(job, note=NO_LOG)
    comparison = Comparison(job)
    decisions = [one for one in decisions_in(session, job, covered) if one.decision == SEND_EMAIL]
    recipients = [one.detail["recipient_id"] for one in decisions]
    emails_by_id = dict(session.execute(select(User.id, User.email).where(in_array(User.id, recipients))).all())
    ids_by_email = {email.lower(): user_id for user_id, email in emails_by_id.items()}
    ours: Counter[tuple[str, date]] = Counter()
    last_decided: dict[tuple[str, date], datetime] = {}
    for one in decisions:
        key = (emails_by_id[one.detail["recipient_id"]].lower(), one.first_seen_at.astimezone(zone).date())
        ours[key] += 1
        last_decided[key] = one.first_seen_at
    theirs = Counter(
        (email.recipient_email, email.sent_at.astimezone(zone).date())
        for email in sent
        if email.kind == KIND_BY_JOB[job] and covered.since <= email.sent_at <= covered.settled
    )
    for key in sorted(ours.keys() | theirs.keys(), key=lambda one: (one[1], one[0])):
        both = min(ours[key], theirs[key])
        comparison.agreements += both
        who = f"user {ids_by_email[key[0]]}" if key[0] in ids_by_email else "an address that ours would not email"
        subject = f"{KIND_BY_JOB[job]} to {who} on {key[1]}"
        if theirs[key] > both:
            comparison.add_difference(
                subject, f"{ours[key]} emails", f"{theirs[key]} emails", "ours would not have sent it"
            )
        elif ours[key] > both and last_decided[key] > covered.settled:
            comparison.pending += ours[key] - both
        elif ours[key] > both:
            comparison.add_difference(subject, f"{ours[key]} emails", f"{theirs[key]} emails", "it is not in the log")
    return comparison
