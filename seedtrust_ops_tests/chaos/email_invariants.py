"""What must hold of emails once all jobs have finished, judged by SeedTrust's tables and the mail server alone.

Exactly-once delivery cannot be promised: if a worker crashes between the mail server's reply and its own commit, it is
unknown whether the email was sent. The promise is at most one duplicate per crash, with the same Message-ID.
"""

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import text

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.sandbox.mailbox.control_client import SandboxMailbox
from seedtrust_ops_tests.chaos.violations import Violation, ViolationKind

NOTIFICATIONS = """
    select n.dedupe_key, n.kind, n.status, n.recipient_email, u.is_active
      from ops.notifications n left join users u on u.id = n.recipient_id
"""
MAX_DUPLICATES_PER_CRASH = 1


def check_emails(sessions: Sessions, mailbox: SandboxMailbox, *, expected: Counter[str]) -> list[Violation]:
    """Return the violations among the emails after one crash; `expected` counts the emails by kind."""
    with sessions() as session:
        notifications = session.execute(text(NOTIFICATIONS)).all()
    received: dict[str, list[str]] = {}
    recipients = {notification.recipient_email for notification in notifications}
    for recipient, message_id in mailbox.message_ids():
        if recipient in recipients:
            received.setdefault(recipient, []).append(message_id)
    return [
        *_wrong_counts(Counter(notification.kind for notification in notifications), expected),
        *_unsent(notifications),
        *_not_received_once(Counter(notification.recipient_email for notification in notifications), received),
    ]


def _wrong_counts(queued: Counter[str], expected: Counter[str]) -> Iterator[Violation]:
    if queued != expected:
        yield Violation(ViolationKind.UNEXPLAINED, f"Emails queued by kind: {dict(queued)}, expected {dict(expected)}.")


def _unsent(notifications: list) -> Iterator[Violation]:
    for notification in notifications:
        if notification.status != "sent":
            yield Violation(
                ViolationKind.UNEXPLAINED, f"Email {notification.dedupe_key} is '{notification.status}', not 'sent'."
            )


def _not_received_once(queued: Counter[str], received: dict[str, list[str]]) -> Iterator[Violation]:
    duplicates = 0
    for recipient, emails in queued.items():
        message_ids = received.get(recipient, [])
        if len(set(message_ids)) != emails:
            yield Violation(
                ViolationKind.UNEXPLAINED,
                f"{recipient} should receive {emails} emails, but received {len(set(message_ids))} different ones.",
            )
        duplicates += len(message_ids) - len(set(message_ids))
    if duplicates > MAX_DUPLICATES_PER_CRASH:
        yield Violation(ViolationKind.UNEXPLAINED, f"After one crash, {duplicates} duplicate emails were received.")
