"""Deliverers that are killed, frozen or cut off: every letter arrives, and at most the one in hand arrives twice."""

import signal
from collections import Counter
from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from seedtrust_ops_tests.domain.outbox.dispatcher_process import STEPS
from seedtrust_ops_tests.domain.outbox.email_outbox import Post
from seedtrust_ops_tests.support.waiters import wait_until

LETTERS = 4
ANSWER_LOST = {"handed in", "noting"}
"""Where a deliverer dies after the mail server's answer and before the note of it is committed."""


def copies(post: Post) -> Counter[str]:
    """How often each Message-ID arrived."""
    return Counter(message_id for _, message_id in post.mailbox.control.message_ids())


# "claimed" is asked of the first letter alone: before any other, the note on the one before is under way.
@pytest.mark.parametrize(("step", "number"), [("claimed", 1), *product(STEPS[1:], (1, 3))])
def test_deliverer_that_dies_at_a_step_costs_at_most_one_second_copy(post: Post, step: str, number: int) -> None:
    for _ in range(LETTERS):
        post.queue()
    with post.deliverer(step, str(number)) as process:
        assert process.wait(60) == 9
    # What it held is nobody else's until its time is over.
    assert post.deliver().sent == 0
    post.let_time_pass()

    post.deliver()

    assert post.statuses() == {"sent": LETTERS}
    assert sorted(copies(post).values()) == [1] * (LETTERS - 1) + [2 if step in ANSWER_LOST else 1]


def test_deliverer_killed_somewhere_in_the_middle_costs_at_most_one_second_copy(post: Post) -> None:
    user = post.user()
    for _ in range(60):
        post.queue(user)
    with post.deliverer() as process:
        wait_until(lambda: len(post.received()) >= 10, what="ten letters")
        process.send_signal(signal.SIGKILL)
        process.wait()
    post.let_time_pass()

    post.deliver()

    assert post.statuses() == {"sent": 60}
    assert len(copies(post)) == 60
    assert sum(copies(post).values()) <= 61


def test_deliverer_frozen_past_its_hold_finds_that_it_holds_nothing_any_more(post: Post) -> None:
    user = post.user()
    for _ in range(40):
        post.queue(user)
    with post.deliverer() as process:
        wait_until(lambda: len(post.received()) >= 5, what="five letters")
        process.send_signal(signal.SIGSTOP)
        # Where it is frozen in a transaction, the database ends that after a while and frees its letter.
        wait_until(lambda: _all_sent_by_another(post), seconds=90, every=0.5, what="the other deliverer")
        process.send_signal(signal.SIGCONT)
        process.wait(60)

    assert len(copies(post)) == 40
    assert sum(copies(post).values()) <= 41


def _all_sent_by_another(post: Post) -> bool:
    with post.sessions.begin() as session:
        session.execute(text("set local lock_timeout = '200ms'"))
        try:
            session.execute(text("update ops.notifications set next_attempt_at = now() where status = 'queued'"))
        except DBAPIError:
            session.rollback()
            return False
    post.deliver()
    return post.statuses() == {"sent": 40}


def test_database_that_drops_every_connection_costs_at_most_one_second_copy(post: Post) -> None:
    user = post.user()
    for _ in range(40):
        post.queue(user)
    with post.deliverer() as process:
        wait_until(lambda: len(post.received()) >= 5, what="five letters")
        with post.sessions.begin() as session:
            session.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        process.wait(60)
    post.let_time_pass()
    post.deliver()
    assert post.statuses() == {"sent": 40}
    assert len(copies(post)) == 40
    assert sum(copies(post).values()) <= 41
