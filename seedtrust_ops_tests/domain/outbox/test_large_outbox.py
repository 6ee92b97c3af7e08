"""Two thousand emails are sent over one connection, in bounded memory."""

import pytest
from sqlalchemy import text

from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness

EMAILS = 2_000
MAX_GROWTH_MEGABYTES = 10


@pytest.mark.timeout(300)
def test_large_outbox_uses_one_connection_and_bounded_memory(outbox: OutboxHarness) -> None:
    template = outbox.enqueue()
    with outbox.sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, variables)"
                " select 'approved-' || n, kind, recipient_id, recipient_email, '', variables"
                " from ops.notifications, generate_series(2, :many) n where id = :template"
            ),
            {"many": EMAILS, "template": template},
        )
    before = outbox.mailbox.control.totals()["connections"]

    with outbox.dispatcher_process() as process:
        output, _ = process.communicate()

    sent, grown_megabytes = map(int, output.split())
    assert sent == EMAILS
    assert grown_megabytes < MAX_GROWTH_MEGABYTES
    assert outbox.statuses() == {"sent": EMAILS}
    assert outbox.mailbox.control.totals() == {"emails": EMAILS, "connections": before + 1}
    assert len(set(outbox.mailbox.control.message_ids())) == EMAILS
