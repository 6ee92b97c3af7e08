"""Emails are sent once, most urgent first; one that can't be sent fails alone, is retried, or opens an alert."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import ORMExecuteState

from seedtrust_ops.domain.notifications import TableEmailKind
from seedtrust_ops.domain.notifications.kind_registry import KINDS
from seedtrust_ops.domain.outbox import Attachment, Email, count_due_emails, dispatcher, enqueue_emails
from seedtrust_ops.domain.outbox.email_sink import RequeuedEmails, message_id, requeue_failed
from seedtrust_ops.email_addresses import parse_mailbox
from seedtrust_ops.ports.object_storage import DownloadLink, StorageRejected
from seedtrust_ops.resources.smtp import SmtpTransport
from seedtrust_ops.sandbox.mailbox import process
from seedtrust_ops.sandbox.mailbox.faults import MailFaultKind
from seedtrust_ops.tables import Notification, NotificationAttachment, User
from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness
from seedtrust_ops_tests.support.email_kinds import kinds_of_a_test


def test_due_email_is_sent_once_and_recorded(outbox: OutboxHarness) -> None:
    user = outbox.add_user(full_name="Maria Álvarez", email="maria@example.test")
    email_id = outbox.enqueue(user)

    assert (outbox.send_due().sent, outbox.send_due().sent) == (1, 0)

    (received,) = outbox.mailbox.control.emails()
    assert received.sender == "escrow@seedtrust.example"
    assert str(received.message["To"]) == "Maria Álvarez <maria@example.test>"
    assert "Hello Maria Álvarez," in received.text
    assert "$2,450.00" in received.html
    row = outbox.row(email_id)
    assert (row.status, row.attempts, row.last_error) == ("sent", 1, None)
    assert row.sent_at is not None
    assert row.subject == received.subject == "Disbursement request 5518 was approved: case ST-1042"
    assert received.message_id == message_id(row.dedupe_key, "escrow@seedtrust.example")


def test_subject_given_with_the_email_is_kept(outbox: OutboxHarness) -> None:
    outbox.enqueue(subject="Payment returned by the bank: case CASE-1")
    outbox.send_due()
    assert outbox.mailbox.control.emails()[0].subject == "Payment returned by the bank: case CASE-1"


def test_email_is_enqueued_once_per_dedupe_key(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    email = Email("report:1:1", "report", user.id, user.email, attachment=Attachment("a.csv", "text/csv", b"1"))
    with outbox.sessions.begin() as session:
        assert enqueue_emails(session, [email, email]) == 1
        assert enqueue_emails(session, [email]) == 0
    with outbox.sessions() as session:
        assert session.query(NotificationAttachment).count() == 1


def test_enqueue_accepts_more_emails_than_a_statement_has_parameters(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    with outbox.sessions.begin() as session:
        emails = [Email(f"k:{number}", "alert-opened", user.id, user.email) for number in range(20_000)]
        assert enqueue_emails(session, emails) == 20_000
        assert count_due_emails(session) == 20_000


def test_four_concurrent_dispatchers_send_every_email_once(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    ids = [outbox.enqueue(user) for _ in range(120)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: outbox.send_due(), range(4)))

    assert sum(report.sent for report in reports) == len(ids)
    assert outbox.statuses() == {"sent": len(ids)}
    copies = Counter(message_id for _, message_id in outbox.mailbox.control.message_ids())
    assert len(copies) == len(ids)
    assert set(copies.values()) == {1}


def test_many_emails_use_one_connection(outbox: OutboxHarness) -> None:
    before = outbox.mailbox.control.totals()["connections"]
    for _ in range(30):
        outbox.enqueue()
    outbox.send_due()
    assert outbox.mailbox.control.totals()["connections"] == before + 1


def test_urgent_kinds_are_sent_first(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    for kind in ("dr-approved", "dr-approved", "case-close", "report-failed", "alert-opened"):
        outbox.enqueue(user, kind=kind)
    outbox.send_due()
    subjects = [email.subject for email in outbox.mailbox.control.emails()]
    assert [subject.split()[0] for subject in subjects] == [
        "CRITICAL:",
        "Your",
        "Closes",
        "Disbursement",
        "Disbursement",
    ]


def test_email_of_an_unknown_kind_waits_for_a_release_that_knows_it(outbox: OutboxHarness) -> None:
    unknown, known = outbox.enqueue(kind="birthday", variables={"as_of": "2026-03-03", "rows": []}), outbox.enqueue()
    report = outbox.send_due()
    assert (report.sent, report.failed, report.still_due) == (1, 0, 0)
    assert outbox.row(known).status == "sent"
    assert (outbox.row(unknown).status, outbox.row(unknown).attempts) == ("queued", 0)

    with kinds_of_a_test():
        TableEmailKind(
            name="birthday",
            recipients="A test.",
            subject="Happy birthday",
            introduction="{{ count | pluralize('year') }}",
            columns=(),
            example=[],
        )
        assert outbox.send_due().sent == 1


def test_rejected_recipient_fails_alone_with_the_reply_and_an_alert(outbox: OutboxHarness) -> None:
    first, rejected, last = outbox.enqueue(), outbox.enqueue(), outbox.enqueue()
    address = outbox.row(rejected).recipient_email
    outbox.mailbox.control.inject_fault("reject", recipient=address, times=None)

    report = outbox.send_due()

    assert (report.sent, report.failed, report.error) == (2, 1, None)
    assert outbox.received_recipients() == [outbox.row(first).recipient_email, outbox.row(last).recipient_email]
    row = outbox.row(rejected)
    assert (row.status, row.attempts) == ("failed", 1)
    assert row.last_error == f"The mail server rejected the email: 550 5.1.1 <{address}> user unknown."
    detail = outbox.open_alerts()["dr-approved emails"]
    assert detail.startswith(
        f"Email {rejected} (dr-approved) failed and will not be retried. The reason is in last_error"
    )
    assert address not in detail


def test_rejection_by_a_server_that_hangs_up_fails_its_email_alone(outbox: OutboxHarness) -> None:
    first, rejected, last = outbox.enqueue(), outbox.enqueue(), outbox.enqueue()
    address = outbox.row(rejected).recipient_email
    outbox.mailbox.control.inject_fault("reject_and_hang_up", recipient=address, times=None)

    report = outbox.send_due()

    assert (report.sent, report.failed, report.error) == (2, 1, None)
    assert outbox.received_recipients() == [outbox.row(first).recipient_email, outbox.row(last).recipient_email]
    assert outbox.row(rejected).last_error == f"The mail server rejected the email: 550 5.1.1 <{address}> user unknown."


def test_rejected_content_fails_alone(outbox: OutboxHarness) -> None:
    outbox.mailbox.control.inject_fault("reject_content")
    rejected, accepted = outbox.enqueue(), outbox.enqueue()
    outbox.send_due()
    assert (outbox.row(rejected).status, outbox.row(accepted).status) == ("failed", "sent")


def test_failed_emails_can_be_requeued_which_resolves_their_alert(outbox: OutboxHarness) -> None:
    inactive = outbox.add_user(is_active=False)
    withheld, rejected = outbox.enqueue(inactive), outbox.enqueue()
    outbox.mailbox.control.inject_fault("reject", recipient=outbox.row(rejected).recipient_email)
    outbox.send_due()

    with outbox.sessions.begin() as session:
        assert requeue_failed(session) == RequeuedEmails(requeued=1, out_of_date=0, inactive=1)

    assert outbox.open_alerts() == {}
    assert outbox.send_due().sent == 1
    assert (outbox.row(rejected).status, outbox.row(withheld).status) == ("sent", "failed")


def test_user_made_inactive_after_enqueue_gets_nothing_without_an_alert(outbox: OutboxHarness) -> None:
    user, other = outbox.add_user(), outbox.add_user()
    withheld = outbox.enqueue(user)
    outbox.enqueue(other)
    with outbox.sessions.begin() as session:
        session.execute(update(User).where(User.id == user.id).values(is_active=False))

    report = outbox.send_due()

    assert (report.sent, report.withheld, report.failed) == (1, 1, 0)
    assert outbox.received_recipients() == [other.email]
    assert (outbox.row(withheld).status, outbox.row(withheld).attempts) == ("failed", 0)
    assert "not an active user" in (outbox.row(withheld).last_error or "")
    assert outbox.open_alerts() == {}


@pytest.mark.parametrize("kind", ["transfer-failed", "transfer-rejected", "transfer-returned", "case-close"])
def test_inactive_recipient_of_what_somebody_must_act_on_opens_an_alert(outbox: OutboxHarness, kind: str) -> None:
    email_id = outbox.enqueue(outbox.add_user(is_active=False), kind=kind)
    outbox.send_due()
    detail = outbox.open_alerts()[f"{kind} emails"]
    assert detail.startswith(f"Email {email_id} ({kind}) was not sent. The recipient is not an active user")


def test_email_older_than_its_use_is_neither_sent_nor_revived(outbox: OutboxHarness) -> None:
    kinds = [kind for kind in KINDS.values() if kind.useful_for is not None and kind.name != "report"]
    user = outbox.add_user()
    for kind in kinds:
        for age in (kind.useful_for - timedelta(hours=1), kind.useful_for + timedelta(hours=1)):
            email_id = outbox.enqueue(user, kind=kind.name)
            with outbox.sessions.begin() as session:
                session.execute(
                    update(Notification)
                    .where(Notification.id == email_id)
                    .values(created_at=datetime.now(UTC) - age, subject=f"{kind.name} {age}")
                )
    report = outbox.send_due()
    assert (report.sent, report.withheld) == (len(kinds), len(kinds))
    assert set(outbox.open_alerts()) == {f"{kind.name} emails" for kind in kinds}
    assert all("is of no use any more" in detail for detail in outbox.open_alerts().values())
    with outbox.sessions.begin() as session:
        failed = session.scalars(select(Notification.last_error).where(Notification.status == "failed")).all()
        assert all(error is not None and error.startswith("It was queued more than") for error in failed)
        assert requeue_failed(session) == RequeuedEmails(requeued=0, out_of_date=len(kinds), inactive=0)


def test_reminder_of_240_days_ago_is_not_revived(outbox: OutboxHarness) -> None:
    email_id = outbox.enqueue(kind="case-close")
    with outbox.sessions.begin() as session:
        session.execute(
            update(Notification).values(status="failed", created_at=datetime.now(UTC) - timedelta(days=240))
        )
        assert requeue_failed(session).requeued == 0
    assert (outbox.send_due().sent, outbox.row(email_id).status) == (0, "failed")


def test_deleted_user_gets_nothing_but_an_address_without_user_does(outbox: OutboxHarness) -> None:
    outbox.enqueue(recipient_id=9_999_999)
    outbox.enqueue(kind="alert-opened", recipient_id=None, recipient_email="ops@example.test")
    assert (outbox.send_due().withheld, outbox.received_recipients()) == (1, ["ops@example.test"])


def test_long_name_and_foreign_domain_reach_the_server_in_ascii(
    outbox: OutboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "María Guðmundsdóttir Álvarez de la Torre y García-Hernández 李"
    user = outbox.add_user(full_name=name, email="maria@münchen.example")
    outbox.enqueue(user, subject="Überweisung " * 12)
    monkeypatch.setattr(process, "SENDER", "Büro 李 <escrow@büro.example>")
    assert outbox.send_due().sent == 1
    (received,) = outbox.mailbox.control.emails()
    assert (received.sender, received.recipient) == ("escrow@xn--bro-hoa.example", "maria@xn--mnchen-3ya.example")
    headers = message_from_bytes(received.content)
    assert parse_mailbox(headers["To"]) == (name, "maria@xn--mnchen-3ya.example")
    assert parse_mailbox(headers["From"]) == ("Büro 李", "escrow@xn--bro-hoa.example")
    assert received.subject == ("Überweisung " * 12).strip()
    assert received.message_id.endswith("@xn--bro-hoa.example>")
    lines = received.content.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert max(len(line) for line in lines if b"=?" in line) <= 76
    assert all(len(line) <= 998 and line.isascii() for line in lines)
    assert not [line for line in lines if not line.rstrip().removesuffix(b":")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"variables": {"case_number": "ST-1"}},
            r"Missing variables: disbursement_request_id \(the number of the disbursement request\)",
        ),
        ({"recipient_email": ""}, "can't be used: it is empty"),
        ({"recipient_email": "nobody"}, "'nobody' can't be used: it needs a name, an @ and a domain"),
        ({"recipient_email": "a@b.test\r\nRCPT TO:<x@y.test>"}, "can't be used: U.0040 COMMERCIAL AT"),
        ({"recipient_email": "a@b.test, c@d.test"}, "can't be used: U.0040 COMMERCIAL AT"),
        ({"recipient_email": f"{'a' * 1_990}@evil.example"[:2_001]}, r"'a{99}…' can't be used: it has more than 320"),
        ({"kind": "report"}, "'attachment_name' is undefined"),
    ],
    ids=["variable", "no address", "incomplete", "smtp injection", "two addresses", "cut address", "no attachment"],
)
def test_unsendable_email_fails_with_a_reason_and_the_others_are_sent(
    outbox: OutboxHarness, changes: dict[str, object], reason: str
) -> None:
    unsendable, valid = outbox.enqueue(**changes), outbox.enqueue()  # type: ignore[arg-type]
    report = outbox.send_due()
    assert (report.sent, report.failed) == (1, 1)
    row = outbox.row(unsendable)
    assert row.status == "failed"
    assert re.search(reason, row.last_error or "")
    assert outbox.row(valid).status == "sent"
    assert len(outbox.open_alerts()) == 1


def test_row_locked_by_another_application_holds_back_no_other(outbox: OutboxHarness) -> None:
    ids = [outbox.enqueue() for _ in range(3)]
    locked = ids[1]
    locking = outbox.sessions()

    def lock_after_claim(statement: ORMExecuteState) -> None:
        # A claim skips locked rows by itself, so the row is locked once it is claimed.
        if statement.is_select and statement.session is not locking and not locking.in_transaction():
            with outbox.sessions.kw["bind"].connect() as connection:
                claimed = connection.scalar(select(Notification.claim_token).where(Notification.id == locked))
            if claimed:
                locking.execute(select(Notification.id).where(Notification.id == locked).with_for_update())

    event.listen(outbox.sessions, "do_orm_execute", lock_after_claim)
    try:
        assert outbox.send_due().sent == 2
        assert locking.in_transaction()
    finally:
        event.remove(outbox.sessions, "do_orm_execute", lock_after_claim)
        locking.close()
    assert outbox.statuses() == {"sent": 2, "queued": 1}
    outbox.make_all_due()
    assert outbox.send_due().sent == 1


@pytest.mark.parametrize(
    "damage",
    ["update ops.notifications set variables = 'null'", "update public.users set created_at = 'infinity'"],
    ids=["variables", "recipient"],
)
def test_row_that_python_cannot_handle_holds_back_no_other(outbox: OutboxHarness, damage: str) -> None:
    user = outbox.add_user()
    with outbox.sessions.begin() as session:
        damaged = outbox.enqueue(user)
        session.execute(text(f"{damage} where id = {damaged if 'notifications' in damage else user.id}"))
    healthy = [outbox.enqueue() for _ in range(2)]
    outbox.send_due()
    assert [outbox.row(email_id).status for email_id in healthy] == ["sent", "sent"]
    row = outbox.row(damaged)
    assert row.status == "sent" or "TypeError, an unexpected error" in (row.last_error or "")


def test_invalid_nested_variables_fail_with_a_reason(outbox: OutboxHarness) -> None:
    ids = [
        outbox.enqueue(kind="balance-reminder", variables={"as_of": "2026-03-03", "rows": [{"case_number": "A"}]}),
        outbox.enqueue(kind="case-close", variables={"case_number": "A", "close_on": "soon", "late": False}),
        outbox.enqueue(
            kind="alert-digest",
            variables={"as_of": "soon", "opened": [], "still_open": [], "resolved": [], "left_out": 0},
        ),
    ]
    assert outbox.send_due().failed == 3
    errors = [outbox.row(email_id).last_error or "" for email_id in ids]
    assert all("can't be rendered" in error for error in errors)
    assert "balance_cents" in errors[0]
    assert "soon" in errors[1]


def test_five_megabyte_attachment_arrives_whole_and_is_deleted(outbox: OutboxHarness) -> None:
    content = bytes(range(256)) * 20_480
    user = outbox.add_user()
    outbox.enqueue(user, kind="report", attachment=Attachment("Übersicht.xlsx", "application/x-xlsx", content))
    outbox.send_due()
    (received,) = outbox.mailbox.control.emails()
    assert received.attachments == {"Übersicht.xlsx": content}
    assert "attached to this email as\nÜbersicht.xlsx" in received.text
    with outbox.sessions() as session:
        assert session.query(NotificationAttachment).count() == 0


@pytest.mark.parametrize("expires_at", [datetime(2026, 3, 10, 15, 0, tzinfo=UTC), None])
def test_link_is_signed_on_delivery_and_stored_nowhere(outbox: OutboxHarness, expires_at: datetime | None) -> None:
    variables = dict(KINDS["report"].examples["report"].variables)
    variables["stored_file"] = {"key": "reports/7/a.csv", "filename": "a.csv"}
    email_id = outbox.enqueue(kind="report", variables=variables)
    signed: list[tuple[str, str]] = []

    def sign_link(key: str, filename: str) -> DownloadLink:
        signed.append((key, filename))
        return DownloadLink("https://reports.example/a?X-Amz-Signature=5ec4e7", expires_at)

    assert outbox.send_due(sign_link=sign_link).sent == 1
    assert signed == [("reports/7/a.csv", "a.csv")]
    (email,) = outbox.mailbox.control.emails()
    ends = "for a few hours" if expires_at is None else "until March 10, 2026 at 11:00 AM EDT"
    for content in (email.text, email.html):
        assert f"link below, which works {ends}." in " ".join(content.split())
        assert "X-Amz-Signature=5ec4e7" in content
    with outbox.sessions() as session:
        stored = session.scalars(text("select to_jsonb(n)::text from ops.notifications n")).all()
    assert outbox.row(email_id).status == "sent"
    assert "5ec4e7" not in "".join(stored)


def test_link_that_cannot_be_signed_defers_its_own_email_alone(outbox: OutboxHarness) -> None:
    variables = dict(KINDS["report"].examples["report"].variables)
    variables["stored_file"] = {"key": "reports/7/a.csv", "filename": "a.csv"}
    linked, other = outbox.enqueue(kind="report", variables=variables), outbox.enqueue()

    def fail(key: str, filename: str) -> DownloadLink:
        raise StorageRejected("S3 can't be used: no credentials.")

    report = outbox.send_due(sign_link=fail)
    assert (report.sent, report.will_retry, report.error) == (1, 1, None)
    assert outbox.row(other).status == "sent"
    assert (outbox.row(linked).status, outbox.row(linked).attempts) == ("queued", 1)
    assert "could not be signed. S3 can't be used: no credentials." in str(outbox.row(linked).last_error)
    outbox.make_all_due()
    assert outbox.send_due().will_retry == 1
    assert "no storage to sign" in str(outbox.row(linked).last_error)


def test_deferred_email_is_retried_with_backoff_and_fails_after_five(outbox: OutboxHarness) -> None:
    email_id = outbox.enqueue()
    outbox.mailbox.control.inject_fault("defer", times=None)
    delays = []
    for attempt in range(1, 5):
        assert outbox.send_due().will_retry == 1
        assert outbox.send_due().will_retry == 0
        row = outbox.row(email_id)
        assert (row.status, row.attempts) == ("queued", attempt)
        delays.append(round(outbox.retry_delay(email_id) / timedelta(minutes=1)))
        outbox.make_all_due()
    assert delays == [1, 6, 36, 216]
    assert outbox.open_alerts() == {}

    assert outbox.send_due().failed == 1

    row = outbox.row(email_id)
    assert (row.status, row.attempts) == ("failed", 5)
    assert "451 4.7.1" in (row.last_error or "")
    assert "attempt 5, the last one" in (row.last_error or "")
    assert list(outbox.open_alerts()) == ["dr-approved emails"]
    outbox.make_all_due()
    assert outbox.send_due().still_due == 0


@pytest.mark.parametrize("fault", ["drop_at_mail", "busy"])
def test_connection_lost_before_sending_is_reopened(outbox: OutboxHarness, fault: MailFaultKind) -> None:
    for _ in range(3):
        outbox.enqueue()
    before = outbox.mailbox.control.totals()["connections"]
    outbox.mailbox.control.inject_fault(fault, skip=1)

    report = outbox.send_due()

    assert (report.sent, report.will_retry, report.error) == (3, 0, None)
    assert outbox.mailbox.control.totals()["connections"] == before + 2
    assert len(set(outbox.received_recipients())) == len(outbox.received_recipients()) == 3


def test_delivery_stops_in_time_and_leaves_the_rest_queued(
    outbox: OutboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        outbox.enqueue()
    report = outbox.send_due(max_seconds=0)
    assert (report.sent, report.still_due) == (0, 3)
    # The clock advances only while an email is sent, however busy the machine is.
    now = [0.0]
    monkeypatch.setattr(dispatcher, "monotonic", lambda: now[0])
    real_send = SmtpTransport.send

    def slow_send(transport: SmtpTransport, message: Message) -> None:
        real_send(transport, message)
        now[0] += 0.3

    monkeypatch.setattr(SmtpTransport, "send", slow_send)
    report = outbox.send_due(max_seconds=0.2)
    assert (report.sent, report.still_due) == (1, 2)
    with outbox.sessions() as session:
        assert session.query(Notification).filter_by(status="queued", attempts=0, claim_token=None).count() == 2


def test_email_fails_after_crashed_dispatchers_used_up_its_attempts(outbox: OutboxHarness) -> None:
    email_id = outbox.enqueue()
    with outbox.sessions.begin() as session:
        session.execute(update(Notification).values(attempts=5))
    assert outbox.send_due().failed == 1
    assert outbox.row(email_id).last_error == "All 5 attempts were interrupted before a result."
    assert list(outbox.open_alerts()) == ["dr-approved emails"]
