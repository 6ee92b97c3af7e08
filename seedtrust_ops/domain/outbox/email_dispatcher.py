"""Delivers what is due in the outbox: claim a group, count an attempt, hand the letter in, record the answer.

Each attempt is committed before its letter leaves and each answer before the next letter does, so that whatever
dies in between can cost at most one letter a second copy, under the same Message-ID.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic

from sqlalchemy.orm import Session

from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.domain.db_transaction import Sessions, run_in_transaction
from seedtrust_ops.domain.notifications.renderer import EmailRenderer, UnusableLetter
from seedtrust_ops.domain.outbox.email_claims import (
    FAILING,
    Claim,
    DueLetter,
    Passed,
    Patience,
    claim_letters,
    record_failed,
    record_postponed,
    record_sent,
    release,
    start_attempt,
)
from seedtrust_ops.domain.outbox.email_store import due_letters, has_waited
from seedtrust_ops.domain.outbox.mime_messages import write_out
from seedtrust_ops.ports.email import EmailDeferred, EmailRejected, EmailTransport, MailServerUnavailable

MAIL_SERVER = "mail server"
"""The subject of the alert that no letter can be handed in."""
TELL_AFTER = timedelta(minutes=10)
"""A mail server that is away for less is no news."""

Note = Callable[[Session], object]


@dataclass
class DeliveryReport:
    """What a delivery came to: letters sent, to be tried again, given up; and how many still wait, due, untried."""

    sent: int = 0
    postponed: int = 0
    failed: int = 0
    withheld: int = 0
    still_due: int = 0
    trouble: str | None = None
    """Why the mail server can't be used, None where it can."""


def send_due_emails(
    sessions: Sessions,
    post_office: EmailTransport,
    stationery: EmailRenderer,
    *,
    patience: Patience | None = None,
    longest_seconds: float = 600,
    kinds: Sequence[str] | None = None,
) -> DeliveryReport:
    """Send the letters that are due, most urgent kind first, until none is or `longest_seconds` have passed.

    Only letters of `kinds` are sent, where they are given.

    Any number of deliverers may run at once. A letter that can't be written out or is refused fails alone. Where
    the mail server can't be used, the one letter that found out has had an attempt and the others have not.
    """
    delivery = _Delivery(sessions, post_office, stationery, patience or Patience())
    end = monotonic() + longest_seconds
    while monotonic() < end and delivery.report.trouble is None:
        claim = run_in_transaction(sessions, lambda session: claim_letters(session, delivery.patience, kinds))
        if claim is None:
            break
        delivery.deliver(claim, end)
    delivery.report.still_due = run_in_transaction(sessions, due_letters)
    return delivery.report


class _Delivery:
    """One delivery under way."""

    def __init__(
        self, sessions: Sessions, post_office: EmailTransport, stationery: EmailRenderer, patience: Patience
    ) -> None:
        self.sessions = sessions
        self.post_office = post_office
        self.stationery = stationery
        self.patience = patience
        self.report = DeliveryReport()

    def deliver(self, claim: Claim, end: float) -> None:
        """Deliver one group. The note on a letter and the start of the next are one transaction."""
        note: Note = _nothing
        for letter_id in claim.letter_ids:
            if monotonic() >= end or self.report.trouble is not None:
                break
            started = run_in_transaction(self.sessions, partial(_note_and_start, note, claim, letter_id, self.patience))
            note = self._hand_in(claim, started) if isinstance(started, DueLetter) else self._passed(started)
        run_in_transaction(self.sessions, partial(_note_and_release, note, claim))

    def _hand_in(self, claim: Claim, letter: DueLetter) -> Note:
        """Hand the letter in, and return what is to be recorded of that."""
        try:
            message, subject = write_out(letter, self.stationery, self.post_office.sender)
            self.post_office.send(message)
        except (UnusableLetter, EmailRejected) as error:
            self.report.failed += 1
            return partial(_note_failed, letter, str(error))
        except EmailDeferred as error:
            return self._postponed(claim, letter, str(error))
        except MailServerUnavailable as error:
            self.report.trouble = str(error)
            postponed = self._postponed(claim, letter, str(error))
            return partial(_note_unreachable, postponed, str(error))
        self.report.sent += 1
        return partial(_note_sent, letter, subject, self.report.sent == 1)

    def _postponed(self, claim: Claim, letter: DueLetter, trouble: str) -> Note:
        if letter.attempts >= self.patience.about(letter.kind).attempts:
            self.report.failed += 1
        else:
            self.report.postponed += 1
        return lambda session: record_postponed(session, claim, letter, trouble, self.patience)

    def _passed(self, why: Passed) -> Note:
        self.report.withheld += why is Passed.WITHHELD
        self.report.failed += why is Passed.GIVEN_UP
        return _nothing


def _nothing(_session: Session) -> None:
    return None


def _note_and_start(
    note: Note, claim: Claim, letter_id: int, patience: Patience, session: Session
) -> DueLetter | Passed:
    note(session)
    return start_attempt(session, claim, letter_id, patience)


def _note_and_release(note: Note, claim: Claim, session: Session) -> None:
    note(session)
    release(session, claim)


def _note_failed(letter: DueLetter, trouble: str, session: Session) -> None:
    record_failed(session, letter.id, letter.kind, trouble)


def _note_sent(letter: DueLetter, subject: str, is_first: bool, session: Session) -> None:
    record_sent(session, letter, subject)
    if is_first:
        resolve_alert(session, FAILING, MAIL_SERVER)


def _note_unreachable(postponed: Note, trouble: str, session: Session) -> None:
    is_news = has_waited(session, TELL_AFTER)
    postponed(session)
    if is_news:
        open_alert(session, FAILING, MAIL_SERVER, "HIGH", trouble)
