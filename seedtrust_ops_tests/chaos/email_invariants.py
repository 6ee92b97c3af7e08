"""What must hold of approvals, reports and letters once all is quiet, by SeedTrust's tables and the mail server alone.

A letter can't be promised to arrive once: a worker that dies between the mail server's answer and its own commit
leaves nobody who knows. What is promised is one such letter a crash, under the same Message-ID.
"""

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import text

from seedtrust_ops.domain.db_transaction import Sessions
from seedtrust_ops.sandbox.mailbox.control_client import SandboxMailbox
from seedtrust_ops_tests.chaos.violations import Kind, Violation

LETTERS = """
    select n.dedupe_key, n.kind, n.status, n.recipient_email, u.is_active
      from ops.notifications n left join users u on u.id = n.recipient_id
"""
COPIES_A_CRASH = 1


def check_letters(sessions: Sessions, mailbox: SandboxMailbox, *, expected: Counter[str]) -> list[Violation]:
    """Return what is wrong with the letters after one crash; `expected` counts them by kind."""
    with sessions() as session:
        letters = session.execute(text(LETTERS)).all()
    arrived: dict[str, list[str]] = {}
    ours = {letter.recipient_email for letter in letters}
    for recipient, message_id in mailbox.message_ids():
        if recipient in ours:
            arrived.setdefault(recipient, []).append(message_id)
    return [
        *_not_as_many_as_expected(Counter(letter.kind for letter in letters), expected),
        *_not_sent(letters),
        *_not_arrived_once(Counter(letter.recipient_email for letter in letters), arrived),
    ]


def _not_as_many_as_expected(written: Counter[str], expected: Counter[str]) -> Iterator[Violation]:
    if written != expected:
        yield Violation(Kind.UNEXPLAINED, f"Letters were written: {dict(written)}, and not {dict(expected)}.")


def _not_sent(letters: list) -> Iterator[Violation]:
    for letter in letters:
        if letter.status != "sent":
            yield Violation(Kind.UNEXPLAINED, f"Letter {letter.dedupe_key} is '{letter.status}'.")


def _not_arrived_once(written: Counter[str], arrived: dict[str, list[str]]) -> Iterator[Violation]:
    copies = 0
    for recipient, letters in written.items():
        message_ids = arrived.get(recipient, [])
        if len(set(message_ids)) != letters:
            yield Violation(
                Kind.UNEXPLAINED,
                f"{recipient} was written {letters} letters, and {len(set(message_ids))} different ones arrived.",
            )
        copies += len(message_ids) - len(set(message_ids))
    if copies > COPIES_A_CRASH:
        yield Violation(Kind.UNEXPLAINED, f"After one crash {copies} letters arrived a second time.")
