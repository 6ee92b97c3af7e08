"""A dispatcher in its own process: `python -m ... [STEP NUMBER]` exits at that step of that email, counted from 1.

Without arguments it sends what is due, and prints the number of emails sent and the megabytes by which its memory grew
after the first thousand emails.
"""

import os
import resource
import sys
from email.message import Message
from zoneinfo import ZoneInfo

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import application_sessions
from seedtrust_ops.domain.notifications.renderer import EmailRenderer
from seedtrust_ops.domain.outbox import dispatcher
from seedtrust_ops.domain.outbox.email_sink import send_due_emails
from seedtrust_ops.domain.outbox.queue import Queue
from seedtrust_ops.resources.smtp import SmtpTransport, open_smtp_transport

STEPS = ("claimed", "started", "sent", "recording", "recorded")
"""The points at which a dispatcher can crash, named after what it has done by then."""
MEMORY_BASELINE_AFTER = 1000


class CrashingTransport:
    """The real SMTP transport, which ends the process before or after an email, as a power failure would."""

    def __init__(self, transport: SmtpTransport, step: str, number: int) -> None:
        self._transport = transport
        self._step = step
        self._number = number
        self.sent = 0
        self.memory_before = 0
        self.sender = transport.sender

    def send(self, message: Message) -> None:
        self.sent += 1
        if self.sent == MEMORY_BASELINE_AFTER:
            self.memory_before = _peak_memory()
        if (self._step, self._number) == ("started", self.sent):
            os._exit(9)
        self._transport.send(message)
        if (self._step, self._number) == ("sent", self.sent):
            os._exit(9)


def main() -> None:
    step, number = (sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else ("", 0)
    with open_smtp_transport(get_settings().mail) as real:
        transport = CrashingTransport(real, step, number)
        _crash_around_commit(transport, step, number)
        report = send_due_emails(
            application_sessions(), transport, EmailRenderer(ZoneInfo("America/New_York")), max_seconds=600
        )
    grown = _peak_memory() - transport.memory_before if transport.memory_before else 0
    sys.stdout.write(f"{report.sent} {grown // 1024}\n")


def _crash_around_commit(transport: CrashingTransport, step: str, number: int) -> None:
    start, commit = Queue.lock_claimed, dispatcher.run_in_transaction

    def crashing_start(*arguments: object) -> object:
        # This is called in the transaction that also records the result of the previous email.
        if (step, number) in (("claimed", transport.sent + 1), ("recording", transport.sent)):
            os._exit(9)
        return start(*arguments)  # type: ignore[arg-type]

    def crashing_commit(*arguments: object) -> object:
        result = commit(*arguments)  # type: ignore[arg-type,var-annotated]
        if (step, number) == ("recorded", transport.sent):
            os._exit(9)
        return result

    Queue.lock_claimed = crashing_start  # type: ignore[method-assign, assignment]
    dispatcher.run_in_transaction = crashing_commit  # type: ignore[assignment]


def _peak_memory() -> int:
    """Return the peak memory of this process in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
