"""The sandbox's mail server stores emails, applies injected faults, and stops when its parent process exits."""

import os
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from seedtrust_ops.sandbox.mailbox.faults import MailFaultKind
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops_tests.support.waiters import wait_until

EMAIL = "From: a@example.test\r\nTo: {}\r\nSubject: Hello\r\nMessage-ID: <1@example.test>\r\n\r\nHello.\r\n"


def send(mailbox: MailboxProcess, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", mailbox.smtp_port, timeout=60) as client:
        client.sendmail("a@example.test", recipients, EMAIL.format(", ".join(recipients)))


@pytest.mark.usefixtures("child_processes")
def test_email_is_stored_per_recipient_and_survives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "mailbox.sqlite"
    server = start_mailbox(file)
    send(server, "b@example.test", "c@example.test")
    server.kill()
    with start_mailbox(file, smtp_port=server.smtp_port) as restarted:
        assert restarted.smtp_port == server.smtp_port
        assert restarted.control.message_ids() == [
            ("b@example.test", "<1@example.test>"),
            ("c@example.test", "<1@example.test>"),
        ]
        (email,) = restarted.control.emails("c@example.test")
        assert (email.subject, email.text, email.html, email.attachments) == ("Hello", "Hello.\n", "", {})
        restarted.control.empty()
        assert restarted.control.totals() == {"emails": 0, "connections": 0}


@pytest.mark.parametrize(
    ("kind", "error", "stored"),
    [
        ("reject", smtplib.SMTPRecipientsRefused, 0),
        ("defer", smtplib.SMTPRecipientsRefused, 0),
        ("reject_content", smtplib.SMTPDataError, 0),
        ("busy", smtplib.SMTPSenderRefused, 0),
        ("drop_at_mail", smtplib.SMTPServerDisconnected, 0),
        ("drop_before_accepting", smtplib.SMTPServerDisconnected, 0),
        ("drop_after_accepting", smtplib.SMTPServerDisconnected, 1),
    ],
)
def test_fault_applies_to_the_requested_number_of_emails(
    mailbox: MailboxProcess, kind: MailFaultKind, error: type[Exception], stored: int
) -> None:
    mailbox.control.inject_fault(kind, skip=1)
    send(mailbox, "b@example.test")
    with pytest.raises(error):
        send(mailbox, "b@example.test")
    send(mailbox, "b@example.test")
    assert mailbox.control.totals()["emails"] == 2 + stored


def test_recipient_fault_affects_only_that_address_until_cleared(mailbox: MailboxProcess) -> None:
    mailbox.control.inject_fault("reject", recipient="b@example.test", times=None)
    send(mailbox, "b@example.test", "c@example.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(mailbox, "b@example.test")
    mailbox.control.clear_faults()
    send(mailbox, "b@example.test")
    assert [recipient for recipient, _ in mailbox.control.message_ids()] == ["c@example.test", "b@example.test"]


@pytest.mark.usefixtures("child_processes")
def test_mailbox_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, time; from seedtrust_ops.sandbox.mailbox.process import start_mailbox;"
            "print(start_mailbox(pathlib.Path(sys.argv[1])).server.pid, flush=True); time.sleep(60)",
            str(tmp_path / "mailbox.sqlite"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_until(lambda: not _is_running(pid), what="the server to stop")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
