"""The sandbox's mail server is a real one: it keeps what it gets, fails as it is told, and ends with its starter."""

import os
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from seedtrust_ops.sandbox.mailbox.faults import Trouble
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess, start_mailbox
from seedtrust_ops_tests.support.waiters import wait_until

LETTER = "From: a@example.test\r\nTo: {}\r\nSubject: Hello\r\nMessage-ID: <1@example.test>\r\n\r\nHello.\r\n"


def send(mailbox: MailboxProcess, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", mailbox.smtp_port, timeout=60) as client:
        client.sendmail("a@example.test", recipients, LETTER.format(", ".join(recipients)))


def test_letter_is_kept_once_a_recipient_and_outlives_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "mailbox.sqlite"
    server = start_mailbox(file)
    send(server, "b@example.test", "c@example.test")
    server.kill()
    with start_mailbox(file, smtp_port=server.smtp_port) as back:
        assert back.smtp_port == server.smtp_port
        assert back.control.message_ids() == [
            ("b@example.test", "<1@example.test>"),
            ("c@example.test", "<1@example.test>"),
        ]
        (kept,) = back.control.letters("c@example.test")
        assert (kept.subject, kept.text, kept.html, kept.attachments) == ("Hello", "Hello.\n", "", {})
        back.control.empty()
        assert back.control.totals() == {"letters": 0, "connections": 0}


@pytest.mark.parametrize(
    ("trouble", "error", "kept"),
    [
        ("refuse", smtplib.SMTPRecipientsRefused, 0),
        ("postpone", smtplib.SMTPRecipientsRefused, 0),
        ("refuse_content", smtplib.SMTPDataError, 0),
        ("busy", smtplib.SMTPSenderRefused, 0),
        ("drop_at_mail", smtplib.SMTPServerDisconnected, 0),
        ("drop_before_accepting", smtplib.SMTPServerDisconnected, 0),
        ("drop_after_accepting", smtplib.SMTPServerDisconnected, 1),
    ],
)
def test_trouble_meets_as_many_letters_as_were_ordered(
    mailbox: MailboxProcess, trouble: Trouble, error: type[Exception], kept: int
) -> None:
    mailbox.control.order(trouble, skip=1)
    send(mailbox, "b@example.test")
    with pytest.raises(error):
        send(mailbox, "b@example.test")
    send(mailbox, "b@example.test")
    assert mailbox.control.totals()["letters"] == 2 + kept


def test_trouble_for_one_address_leaves_the_others_alone_until_it_is_cleared(mailbox: MailboxProcess) -> None:
    mailbox.control.order("refuse", recipient="b@example.test", times=None)
    send(mailbox, "b@example.test", "c@example.test")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(mailbox, "b@example.test")
    mailbox.control.clear_orders()
    send(mailbox, "b@example.test")
    assert [recipient for recipient, _ in mailbox.control.message_ids()] == ["c@example.test", "b@example.test"]


def test_server_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
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
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    wait_until(lambda: not _runs(pid), what="the server's end")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
