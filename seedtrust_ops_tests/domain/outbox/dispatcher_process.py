"""A deliverer in a process of its own: `python -m ... [STEP NUMBER]` dies at that step of that letter, from 1.

Without arguments it delivers what is due and prints what it sent and the megabytes by which its memory grew after
the first thousand letters.
"""

import os
import resource
import sys
from email.message import Message
from zoneinfo import ZoneInfo

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_sessions
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox import email_dispatcher
from seedtrust_ops.resources.smtp import SmtpPostOffice, open_post_office

STEPS = ("claimed", "started", "handed in", "noting", "noted")
"""Between which a deliverer can die: what it has done by then."""
BIG_MEMORY_AFTER = 1000


class MortalPostOffice:
    """The real one; it ends the process before or after a letter, as a power cut would."""

    def __init__(self, office: SmtpPostOffice, step: str, number: int) -> None:
        self._office = office
        self._step = step
        self._number = number
        self.sent = 0
        self.memory_before = 0
        self.sender = office.sender

    def send(self, letter: Message) -> None:
        self.sent += 1
        if self.sent == BIG_MEMORY_AFTER:
            self.memory_before = _peak_memory()
        if (self._step, self._number) == ("started", self.sent):
            os._exit(9)
        self._office.send(letter)
        if (self._step, self._number) == ("handed in", self.sent):
            os._exit(9)


def main() -> None:
    step, number = (sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else ("", 0)
    with open_post_office(get_settings().mail) as real:
        office = MortalPostOffice(real, step, number)
        _die_around_the_commit(office, step, number)
        report = email_dispatcher.send_due_emails(
            application_sessions(), office, EmailRenderer(ZoneInfo("America/New_York")), longest_seconds=600
        )
    grown = _peak_memory() - office.memory_before if office.memory_before else 0
    sys.stdout.write(f"{report.sent} {grown // 1024}\n")


def _die_around_the_commit(office: MortalPostOffice, step: str, number: int) -> None:
    start, commit = email_dispatcher.start_attempt, email_dispatcher.commit

    def mortal_start(*arguments: object) -> object:
        # It is called in the transaction that also holds the note on the letter before.
        if (step, number) in (("claimed", office.sent + 1), ("noting", office.sent)):
            os._exit(9)
        return start(*arguments)  # type: ignore[arg-type]

    def mortal_commit(*arguments: object) -> object:
        result = commit(*arguments)  # type: ignore[arg-type,var-annotated]
        if (step, number) == ("noted", office.sent):
            os._exit(9)
        return result

    email_dispatcher.start_attempt = mortal_start  # type: ignore[assignment]
    email_dispatcher.commit = mortal_commit  # type: ignore[assignment]


def _peak_memory() -> int:
    """The most memory that this process ever held, in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
