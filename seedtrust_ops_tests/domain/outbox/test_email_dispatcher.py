"""Letters go out once, most urgent first; what can't be sent fails alone, is tried again later, or is told of."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.message import Message

import pytest
from sqlalchemy import update

from seedtrust_ops.domain.outbox import Attachment, Email, due_letters, email_dispatcher, enqueue_emails
from seedtrust_ops.domain.outbox.email_claims import queue_again
from seedtrust_ops.domain.outbox.mime_messages import message_id
from seedtrust_ops.resources.smtp import SmtpPostOffice
from seedtrust_ops.sandbox.mailbox.faults import Trouble
from seedtrust_ops.tables import Notification, NotificationAttachment, User
from seedtrust_ops_tests.domain.outbox.email_outbox import Post


def test_due_letter_is_sent_once_and_recorded(post: Post) -> None:
    user = post.user(full_name="Maria Álvarez", email="maria@example.test")
    letter_id = post.queue(user)

    assert (post.deliver().sent, post.deliver().sent) == (1, 0)

    (kept,) = post.mailbox.control.letters()
    assert kept.sender == "escrow@seedtrust.example"
    assert str(kept.message["To"]) == "Maria Álvarez <maria@example.test>"
    assert "Hello Maria Álvarez," in kept.text
    assert "$2,450.00" in kept.html
    row = post.letter(letter_id)
    assert (row.status, row.attempts, row.last_error) == ("sent", 1, None)
    assert row.sent_at is not None
    assert row.subject == kept.subject == "Disbursement request 5518 was approved: case ST-1042"
    assert kept.message_id == message_id(row.dedupe_key, "escrow@seedtrust.example")


def test_subject_that_its_writer_gave_is_kept(post: Post) -> None:
    post.queue(subject="Payment returned by the bank: case CASE-1")
    post.deliver()
    assert post.mailbox.control.letters()[0].subject == "Payment returned by the bank: case CASE-1"


def test_letter_is_written_once_however_often_it_is_queued(post: Post) -> None:
    user = post.user()
    letter = Email("report:1:1", "report", user.id, user.email, attachment=Attachment("a.csv", "text/csv", b"1"))
    with post.sessions.begin() as session:
        assert enqueue_emails(session, [letter, letter]) == 1
        assert enqueue_emails(session, [letter]) == 0
    with post.sessions() as session:
        assert session.query(NotificationAttachment).count() == 1


def test_more_letters_than_a_statement_has_parameters_can_be_queued(post: Post) -> None:
    user = post.user()
    with post.sessions.begin() as session:
        letters = [Email(f"k:{number}", "alert-opened", user.id, user.email) for number in range(20_000)]
        assert enqueue_emails(session, letters) == 20_000
        assert due_letters(session) == 20_000


def test_four_deliverers_at_once_send_every_letter_once(post: Post) -> None:
    user = post.user()
    ids = [post.queue(user) for _ in range(120)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: post.deliver(), range(4)))

    assert sum(report.sent for report in reports) == len(ids)
    assert post.statuses() == {"sent": len(ids)}
    copies = Counter(one for _, one in post.mailbox.control.message_ids())
    assert len(copies) == len(ids)
    assert set(copies.values()) == {1}


def test_many_letters_go_over_one_connection(post: Post) -> None:
    before = post.mailbox.control.totals()["connections"]
    for _ in range(30):
        post.queue()
    post.deliver()
    assert post.mailbox.control.totals()["connections"] == before + 1


def test_urgent_kinds_go_first(post: Post) -> None:
    user = post.user()
    for kind in ("dr-approved", "dr-approved", "case-close", "report-failed", "alert-opened"):
        post.queue(user, kind=kind)
    post.deliver()
    subjects = [one.subject for one in post.mailbox.control.letters()]
    assert [subject.split()[0] for subject in subjects] == [
        "CRITICAL:",
        "Your",
        "Closes",
        "Disbursement",
        "Disbursement",
    ]


def test_refused_recipient_fails_alone_with_the_server_s_words_and_an_alert(post: Post) -> None:
    first, refused, last = post.queue(), post.queue(), post.queue()
    address = post.letter(refused).recipient_email
    post.mailbox.control.order("refuse", recipient=address, times=None)

    report = post.deliver()

    assert (report.sent, report.failed, report.trouble) == (2, 1, None)
    assert post.received() == [post.letter(first).recipient_email, post.letter(last).recipient_email]
    row = post.letter(refused)
    assert (row.status, row.attempts) == ("failed", 1)
    assert row.last_error == f"The mail server refused the letter: 550 5.1.1 <{address}> is unknown here."
    told = post.alerts()["dr-approved letters"]
    assert told.startswith(f"Letter {refused} (dr-approved) was not sent; its row in ops.notifications says why.")
    assert address not in told


def test_refused_content_fails_alone(post: Post) -> None:
    post.mailbox.control.order("refuse_content")
    refused, taken = post.queue(), post.queue()
    post.deliver()
    assert (post.letter(refused).status, post.letter(taken).status) == ("failed", "sent")


def test_failed_letters_can_be_queued_again_and_their_alert_is_resolved(post: Post) -> None:
    gone = post.user(is_active=False)
    withheld, refused = post.queue(gone), post.queue()
    post.mailbox.control.order("refuse", recipient=post.letter(refused).recipient_email)
    post.deliver()

    with post.sessions.begin() as session:
        assert queue_again(session) == 1

    assert post.alerts() == {}
    assert post.deliver().sent == 1
    assert (post.letter(refused).status, post.letter(withheld).status) == ("sent", "failed")


def test_user_who_became_inactive_after_the_letter_was_written_gets_nothing_and_nobody_is_alarmed(post: Post) -> None:
    user, other = post.user(), post.user()
    withheld = post.queue(user)
    post.queue(other)
    with post.sessions.begin() as session:
        session.execute(update(User).where(User.id == user.id).values(is_active=False))

    report = post.deliver()

    assert (report.sent, report.withheld, report.failed) == (1, 1, 0)
    assert post.received() == [other.email]
    assert (post.letter(withheld).status, post.letter(withheld).attempts) == ("failed", 0)
    assert "not an active user" in (post.letter(withheld).trouble or "")
    assert post.alerts() == {}


def test_user_who_is_gone_gets_nothing_and_an_address_without_a_user_does(post: Post) -> None:
    post.queue(recipient_id=9_999_999)
    post.queue(kind="alert-opened", recipient_id=None, recipient_email="ops@example.test")
    assert (post.deliver().withheld, post.received()) == (1, ["ops@example.test"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"variables": {"case_number": "ST-1"}},
            r"its variables lack: disbursement_request_id \(the request's number\)",
        ),
        ({"kind": "birthday"}, "There is no kind of letter called 'birthday'; there are alert-opened, alert-resolved,"),
        ({"recipient_email": ""}, "The recipient has no email address"),
        ({"recipient_email": "nobody"}, "'nobody' can't be written to"),
        ({"recipient_email": "a@b.test\r\nRCPT TO:<x@y.test>"}, "can't be written to"),
        ({"recipient_email": "a@b.test, c@d.test"}, "can't be written to"),
        ({"kind": "report"}, "'attachment_name' is undefined"),
    ],
    ids=["variable", "kind", "no address", "half an address", "smtp injection", "two addresses", "no attachment"],
)
def test_letter_that_can_not_be_written_fails_with_a_sentence_and_the_rest_go_on(
    post: Post, changes: dict[str, object], sentence: str
) -> None:
    broken, sound = post.queue(**changes), post.queue()  # type: ignore[arg-type]
    report = post.deliver()
    assert (report.sent, report.failed) == (1, 1)
    row = post.letter(broken)
    assert row.status == "failed"
    assert re.search(sentence, row.last_error or "")
    assert post.letter(sound).status == "sent"
    assert len(post.alerts()) == 1


def test_nested_and_senseless_variables_fail_with_a_sentence_too(post: Post) -> None:
    ids = [
        post.queue(kind="balance-reminder", variables={"as_of": "2026-03-03", "cases": [{"case_number": "A"}]}),
        post.queue(kind="case-close", variables={"case_number": "A", "close_on": "soon", "late": False}),
        post.queue(
            kind="alert-digest",
            variables={"as_of": "soon", "opened": [], "still_open": [], "resolved": [], "left_out": 0},
        ),
    ]
    assert post.deliver().failed == 3
    troubles = [post.letter(one).trouble or "" for one in ids]
    assert all("can't be written" in trouble for trouble in troubles)
    assert "balance_cents" in troubles[0]
    assert "soon" in troubles[1]


def test_attached_report_of_five_megabytes_arrives_whole_and_is_not_kept(post: Post) -> None:
    content = bytes(range(256)) * 20_480
    user = post.user()
    post.queue(user, kind="report", attachment=Attachment("Übersicht.xlsx", "application/x-xlsx", content))
    post.deliver()
    (kept,) = post.mailbox.control.letters()
    assert kept.attachments == {"Übersicht.xlsx": content}
    assert "attached to this letter as\nÜbersicht.xlsx" in kept.text
    with post.sessions() as session:
        assert session.query(NotificationAttachment).count() == 0


def test_postponed_recipient_is_tried_again_after_growing_pauses_and_fails_after_the_fifth(post: Post) -> None:
    letter_id = post.queue()
    post.mailbox.control.order("postpone", times=None)
    pauses = []
    for attempt in range(1, 5):
        assert post.deliver().postponed == 1
        assert post.deliver().postponed == 0
        row = post.letter(letter_id)
        assert (row.status, row.attempts) == ("queued", attempt)
        pauses.append(round(post.pause_of(letter_id) / timedelta(minutes=1)))
        post.let_time_pass()
    assert pauses == [1, 6, 36, 216]
    assert post.alerts() == {}

    assert post.deliver().failed == 1

    row = post.letter(letter_id)
    assert (row.status, row.attempts) == ("failed", 5)
    assert "451 4.7.1" in (row.last_error or "")
    assert "attempt 5, the last" in (row.last_error or "")
    assert list(post.alerts()) == ["dr-approved letters"]
    post.let_time_pass()
    assert post.deliver().still_due == 0


@pytest.mark.parametrize("trouble", ["drop_at_mail", "busy"])
def test_connection_that_is_gone_before_a_letter_leaves_is_made_anew(post: Post, trouble: Trouble) -> None:
    for _ in range(3):
        post.queue()
    before = post.mailbox.control.totals()["connections"]
    post.mailbox.control.order(trouble, skip=1)

    report = post.deliver()

    assert (report.sent, report.postponed, report.trouble) == (3, 0, None)
    assert post.mailbox.control.totals()["connections"] == before + 2
    assert len(set(post.received())) == len(post.received()) == 3


def test_delivery_ends_in_time_and_leaves_the_rest_untried(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        post.queue()
    report = post.deliver(longest_seconds=0)
    assert (report.sent, report.still_due) == (0, 3)
    # Time passes only while a letter is handed in, however busy the machine is.
    now = [0.0]
    monkeypatch.setattr(email_dispatcher, "monotonic", lambda: now[0])
    hand_in = SmtpPostOffice.send

    def slowly(office: SmtpPostOffice, letter: Message) -> None:
        hand_in(office, letter)
        now[0] += 0.3

    monkeypatch.setattr(SmtpPostOffice, "send", slowly)
    report = post.deliver(longest_seconds=0.2)
    assert (report.sent, report.still_due) == (1, 2)
    with post.sessions() as session:
        assert session.query(Notification).filter_by(status="queued", attempts=0, claim_token=None).count() == 2


def test_letter_whose_attempts_were_all_used_up_by_dead_deliverers_fails(post: Post) -> None:
    letter_id = post.queue()
    with post.sessions.begin() as session:
        session.execute(update(Notification).values(attempts=5))
    assert post.deliver().failed == 1
    assert post.letter(letter_id).trouble == "It was tried 5 times, and no try came to an end."
    assert list(post.alerts()) == ["dr-approved letters"]
