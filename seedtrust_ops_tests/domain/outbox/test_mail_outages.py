"""A mail server that is down or does not respond: emails are retried, and on-call is alerted if it lasts."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

from seedtrust_ops.sandbox.mailbox.faults import MailFaultKind
from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness


def test_server_outage_costs_only_one_email_an_attempt(outbox: OutboxHarness, tmp_path: Path) -> None:
    first, second = outbox.enqueue(), outbox.enqueue()
    stopped_server = start_mailbox(tmp_path / "gone.sqlite")
    port = stopped_server.smtp_port
    stopped_server.kill()
    running_server, outbox.mailbox = outbox.mailbox, stopped_server

    report = outbox.send_due()

    assert (report.sent, report.will_retry, report.still_due) == (0, 1, 1)
    assert f"The mail server 127.0.0.1:{port} can't be used: " in (report.error or "")
    assert "Check SMTP_HOST" in (report.error or "")
    assert [outbox.row(email_id).attempts for email_id in (first, second)] == [1, 0]
    assert outbox.open_alerts() == {}

    outbox.mailbox = running_server
    assert outbox.send_due().sent == 1
    outbox.make_all_due()
    assert outbox.send_due().sent == 1


def test_server_that_comes_back_receives_every_email(outbox: OutboxHarness, tmp_path: Path) -> None:
    for _ in range(3):
        outbox.enqueue()
    stopped_server = start_mailbox(tmp_path / "mailbox.sqlite")
    stopped_server.kill()
    outbox.mailbox = stopped_server
    outbox.send_due()
    with start_mailbox(tmp_path / "mailbox.sqlite", smtp_port=stopped_server.smtp_port) as restarted_server:
        outbox.mailbox = restarted_server
        outbox.make_all_due()
        assert outbox.send_due().sent == 3
        assert len(outbox.received_recipients()) == 3


def test_email_fails_with_an_alert_after_five_attempts_in_an_outage(outbox: OutboxHarness, tmp_path: Path) -> None:
    email_id = outbox.enqueue()
    stopped_server = start_mailbox(tmp_path / "gone.sqlite")
    stopped_server.kill()
    outbox.mailbox = stopped_server
    for _ in range(5):
        assert outbox.row(email_id).status == "queued"
        outbox.send_due()
        outbox.make_all_due()
    assert outbox.send_due().error is None
    row = outbox.row(email_id)
    assert (row.status, row.attempts) == ("failed", 5)
    assert list(outbox.open_alerts()) == ["dr-approved emails"]


def test_outage_of_ten_minutes_alerts_until_the_next_email_is_sent(outbox: OutboxHarness, tmp_path: Path) -> None:
    outbox.enqueue()
    with outbox.sessions.begin() as session:
        session.execute(text("update ops.notifications set created_at = now() - interval '11 minutes'"))
    stopped_server = start_mailbox(tmp_path / "gone.sqlite")
    stopped_server.kill()
    running_server, outbox.mailbox = outbox.mailbox, stopped_server
    outbox.send_due()
    assert list(outbox.open_alerts()) == ["mail server"]

    outbox.mailbox = running_server
    outbox.make_all_due()
    assert outbox.send_due().sent == 1
    assert outbox.open_alerts() == {}


def test_outage_alerts_at_once_if_an_email_about_an_alert_waits(outbox: OutboxHarness, tmp_path: Path) -> None:
    outbox.enqueue(kind="alert-opened", recipient_id=None)
    stopped_server = start_mailbox(tmp_path / "gone.sqlite")
    stopped_server.kill()
    running_server, outbox.mailbox = outbox.mailbox, stopped_server
    outbox.send_due()
    assert list(outbox.open_alerts()) == ["mail server"]

    outbox.mailbox = running_server
    outbox.make_all_due()
    assert outbox.send_due().sent == 1
    assert outbox.open_alerts() == {}


@pytest.mark.parametrize(
    ("emails", "recipients", "fault", "is_outage"),
    [
        (20, 20, "relay_denied", True),
        (1, 1, "relay_denied", True),
        (3, 3, "reject", True),
        (2, 2, "reject", False),
        (20, 1, "reject", False),
        (1, 1, "reject_content", False),
    ],
)
def test_refusal_of_everything_is_an_outage_and_fails_no_email(
    outbox: OutboxHarness, emails: int, recipients: int, fault: MailFaultKind, is_outage: bool
) -> None:
    users = [outbox.add_user() for _ in range(recipients)]
    ids = [outbox.enqueue(users[number % recipients]) for number in range(emails)]
    outbox.mailbox.control.inject_fault(fault, times=None)

    report = outbox.send_due()

    assert (report.error is not None) is is_outage
    assert outbox.statuses() == {"queued" if is_outage else "failed": emails}
    assert {outbox.row(one).attempts for one in ids} == {0 if is_outage else 1}
    if is_outage:
        assert outbox.open_alerts() == {}
        with outbox.sessions.begin() as session:
            session.execute(text("update ops.notifications set created_at = now() - interval '11 minutes'"))
        outbox.make_all_due()
        outbox.send_due()
        assert list(outbox.open_alerts()) == ["mail server"]
        assert not any(user.email in outbox.open_alerts()["mail server"] for user in users)
        outbox.mailbox.control.clear_faults()
        outbox.make_all_due()
        assert outbox.send_due().sent == emails
        assert outbox.open_alerts() == {}


def test_refused_recipient_fails_if_another_is_accepted_later(outbox: OutboxHarness) -> None:
    refused, accepted = [outbox.enqueue() for _ in range(4)], outbox.enqueue()
    for one in refused:
        outbox.mailbox.control.inject_fault("relay_denied", recipient=outbox.row(one).recipient_email)
    report = outbox.send_due()
    assert (report.sent, report.failed, report.error) == (1, 4, None)
    assert outbox.row(accepted).status == "sent"
    assert {outbox.row(one).status for one in refused} == {"failed"}
    assert list(outbox.open_alerts()) == ["dr-approved emails"]


def test_late_response_counts_as_lost(outbox: OutboxHarness) -> None:
    email_id = outbox.enqueue()
    # Only the response to the email is late; the delay is longer than a busy machine might stall.
    outbox.mailbox.control.inject_fault("delay", seconds=30)
    report = outbox.send_due(timeout_seconds=4)
    assert (report.will_retry, report.error) == (1, None)
    assert "response to the email was lost" in (outbox.row(email_id).last_error or "")


def test_lost_response_repeats_the_same_message_id_and_no_other_email(outbox: OutboxHarness) -> None:
    first, lost, last = outbox.enqueue(), outbox.enqueue(), outbox.enqueue()
    outbox.mailbox.control.inject_fault("drop_after_accepting", recipient=outbox.row(lost).recipient_email)

    report = outbox.send_due()

    assert (report.sent, report.will_retry) == (2, 1)
    assert "so it may have accepted it" in (outbox.row(lost).last_error or "")
    outbox.make_all_due()
    assert outbox.send_due().sent == 1
    copies = Counter(outbox.mailbox.control.message_ids())
    assert {address: count for (address, _), count in copies.items()} == {
        outbox.row(first).recipient_email: 1,
        outbox.row(lost).recipient_email: 2,
        outbox.row(last).recipient_email: 1,
    }


def test_email_dropped_before_acceptance_arrives_once(outbox: OutboxHarness) -> None:
    outbox.enqueue()
    outbox.mailbox.control.inject_fault("drop_before_accepting")
    assert outbox.send_due().will_retry == 1
    outbox.make_all_due()
    assert outbox.send_due().sent == 1
    assert len(outbox.received_recipients()) == 1
