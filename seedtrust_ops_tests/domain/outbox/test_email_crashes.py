"""Dispatchers that crash, freeze or lose the database: every email arrives, and at most one arrives twice."""

import signal
from collections import Counter
from itertools import product

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from seedtrust_ops_tests.domain.outbox.dispatcher_process import STEPS
from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness
from seedtrust_ops_tests.support.waiters import wait_until

EMAILS = 4
DUPLICATING_STEPS = {"sent", "recording"}
"""A crash here is after the mail server accepted the email and before the result is committed."""


def copies(outbox: OutboxHarness) -> Counter[str]:
    """Return how often each Message-ID arrived."""
    return Counter(message_id for _, message_id in outbox.mailbox.control.message_ids())


# "claimed" only applies to the first email: before any other one, the previous result is being recorded.
@pytest.mark.parametrize(("step", "number"), [("claimed", 1), *product(STEPS[1:], (1, 3))])
def test_dispatcher_crash_at_any_step_duplicates_at_most_one_email(
    outbox: OutboxHarness, step: str, number: int
) -> None:
    for _ in range(EMAILS):
        outbox.enqueue()
    with outbox.dispatcher_process(step, str(number)) as process:
        assert process.wait(60) == 9
    # Its emails stay claimed until the hold ends.
    assert outbox.send_due().sent == 0
    outbox.make_all_due()

    outbox.send_due()

    assert outbox.statuses() == {"sent": EMAILS}
    assert sorted(copies(outbox).values()) == [1] * (EMAILS - 1) + [2 if step in DUPLICATING_STEPS else 1]


def test_dispatcher_kill_mid_delivery_duplicates_at_most_one_email(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    for _ in range(60):
        outbox.enqueue(user)
    with outbox.dispatcher_process() as process:
        wait_until(lambda: len(outbox.received_recipients()) >= 10, what="ten emails")
        process.send_signal(signal.SIGKILL)
        process.wait()
    outbox.make_all_due()

    outbox.send_due()

    assert outbox.statuses() == {"sent": 60}
    assert len(copies(outbox)) == 60
    assert sum(copies(outbox).values()) <= 61


def test_dispatcher_frozen_past_its_hold_sends_no_further_emails(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    for _ in range(40):
        outbox.enqueue(user)
    with outbox.dispatcher_process() as process:
        wait_until(lambda: len(outbox.received_recipients()) >= 5, what="five emails")
        process.send_signal(signal.SIGSTOP)
        # If it was frozen in a transaction, the database ends that after a while and releases the email.
        wait_until(lambda: _all_sent_by_other_dispatcher(outbox), seconds=90, every=0.5, what="the other dispatcher")
        process.send_signal(signal.SIGCONT)
        process.wait(60)

    assert len(copies(outbox)) == 40
    assert sum(copies(outbox).values()) <= 41


def _all_sent_by_other_dispatcher(outbox: OutboxHarness) -> bool:
    with outbox.sessions.begin() as session:
        session.execute(text("set local lock_timeout = '200ms'"))
        try:
            session.execute(text("update ops.notifications set next_attempt_at = now() where status = 'queued'"))
        except DBAPIError:
            session.rollback()
            return False
    outbox.send_due()
    return outbox.statuses() == {"sent": 40}


def test_database_connection_loss_duplicates_at_most_one_email(outbox: OutboxHarness) -> None:
    user = outbox.add_user()
    for _ in range(40):
        outbox.enqueue(user)
    with outbox.dispatcher_process() as process:
        wait_until(lambda: len(outbox.received_recipients()) >= 5, what="five emails")
        with outbox.sessions.begin() as session:
            session.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            )
        process.wait(60)
    outbox.make_all_due()
    outbox.send_due()
    assert outbox.statuses() == {"sent": 40}
    assert len(copies(outbox)) == 40
    assert sum(copies(outbox).values()) <= 41
