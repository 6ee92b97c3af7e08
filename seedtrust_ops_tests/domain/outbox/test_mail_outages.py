"""A mail server that is away or gives no answer: letters are tried later, and people are told where that lasts."""

from collections import Counter
from pathlib import Path

from sqlalchemy import text

from seedtrust_ops.sandbox.mailbox.process import start_mailbox
from seedtrust_ops_tests.domain.outbox.email_outbox import Post


def test_server_that_is_down_costs_one_letter_an_attempt_and_the_others_none(post: Post, tmp_path: Path) -> None:
    first, second = post.queue(), post.queue()
    gone = start_mailbox(tmp_path / "gone.sqlite")
    port = gone.smtp_port
    gone.kill()
    up, post.mailbox = post.mailbox, gone

    report = post.deliver()

    assert (report.sent, report.postponed, report.still_due) == (0, 1, 1)
    assert f"The mail server 127.0.0.1:{port} can't be used: " in (report.trouble or "")
    assert "Check SMTP_HOST" in (report.trouble or "")
    assert [post.letter(one).attempts for one in (first, second)] == [1, 0]
    assert post.alerts() == {}

    post.mailbox = up
    assert post.deliver().sent == 1
    post.let_time_pass()
    assert post.deliver().sent == 1


def test_server_that_comes_back_at_its_port_gets_everything(post: Post, tmp_path: Path) -> None:
    for _ in range(3):
        post.queue()
    gone = start_mailbox(tmp_path / "mailbox.sqlite")
    gone.kill()
    post.mailbox = gone
    post.deliver()
    with start_mailbox(tmp_path / "mailbox.sqlite", smtp_port=gone.smtp_port) as back:
        post.mailbox = back
        post.let_time_pass()
        assert post.deliver().sent == 3
        assert len(post.received()) == 3


def test_letter_fails_after_five_attempts_at_a_server_that_is_down_and_an_alert_says_so(
    post: Post, tmp_path: Path
) -> None:
    letter_id = post.queue()
    gone = start_mailbox(tmp_path / "gone.sqlite")
    gone.kill()
    post.mailbox = gone
    for _ in range(5):
        assert post.letter(letter_id).status == "queued"
        post.deliver()
        post.let_time_pass()
    assert post.deliver().trouble is None
    row = post.letter(letter_id)
    assert (row.status, row.attempts) == ("failed", 5)
    assert list(post.alerts()) == ["dr-approved letters"]


def test_outage_that_has_kept_a_letter_waiting_for_ten_minutes_is_told_and_resolved_by_the_first_letter(
    post: Post, tmp_path: Path
) -> None:
    post.queue()
    with post.sessions.begin() as session:
        session.execute(text("update ops.notifications set created_at = now() - interval '11 minutes'"))
    gone = start_mailbox(tmp_path / "gone.sqlite")
    gone.kill()
    up, post.mailbox = post.mailbox, gone
    post.deliver()
    assert list(post.alerts()) == ["mail server"]

    post.mailbox = up
    post.let_time_pass()
    assert post.deliver().sent == 1
    assert post.alerts() == {}


def test_answer_that_comes_too_late_is_a_lost_one(post: Post) -> None:
    letter_id = post.queue()
    # Longer than a busy machine stands still: the answer to the letter is late, and no other.
    post.mailbox.control.order("delay", seconds=30)
    report = post.deliver(answer_seconds=4)
    assert (report.postponed, report.trouble) == (1, None)
    assert "gave no answer to the letter" in (post.letter(letter_id).trouble or "")


def test_lost_answer_sends_the_same_message_id_again_and_no_other_letter_twice(post: Post) -> None:
    first, lost, last = post.queue(), post.queue(), post.queue()
    post.mailbox.control.order("drop_after_accepting", recipient=post.letter(lost).recipient_email)

    report = post.deliver()

    assert (report.sent, report.postponed) == (2, 1)
    assert "so it may have taken it" in (post.letter(lost).trouble or "")
    post.let_time_pass()
    assert post.deliver().sent == 1
    copies = Counter(post.mailbox.control.message_ids())
    assert {address: count for (address, _), count in copies.items()} == {
        post.letter(first).recipient_email: 1,
        post.letter(lost).recipient_email: 2,
        post.letter(last).recipient_email: 1,
    }


def test_letter_dropped_before_it_was_accepted_arrives_once(post: Post) -> None:
    post.queue()
    post.mailbox.control.order("drop_before_accepting")
    assert post.deliver().postponed == 1
    post.let_time_pass()
    assert post.deliver().sent == 1
    assert len(post.received()) == 1
