"""Hundreds of emails are sent over one connection, in bounded memory."""

import pytest
from sqlalchemy import text

from seedtrust_ops_tests.domain.outbox.outbox_harness import OutboxHarness
from seedtrust_ops_tests.support.tiers import long_version

MANY = "domain/outbox/test_large_outbox.py::test_large_outbox_uses_one_connection_and_bounded_memory"
MAX_GROWTH_MEGABYTES = 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("emails", [500, pytest.param(2_000, marks=long_version(of=MANY))])
def test_large_outbox_uses_one_connection_and_bounded_memory(outbox: OutboxHarness, emails: int) -> None:
    template = outbox.enqueue()
    with outbox.sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, variables)"
                " select 'approved-' || n, kind, recipient_id, recipient_email, '', variables"
                " from ops.notifications, generate_series(2, :many) n where id = :template"
            ),
            {"many": emails, "template": template},
        )
    before = outbox.mailbox.control.totals()["connections"]

    with outbox.dispatcher_process() as process:
        output, _ = process.communicate()

    sent, grown_megabytes = map(int, output.split())
    assert sent == emails
    assert grown_megabytes < MAX_GROWTH_MEGABYTES
    assert outbox.statuses() == {"sent": emails}
    assert outbox.mailbox.control.totals() == {"emails": emails, "connections": before + 1}
    assert len(set(outbox.mailbox.control.message_ids())) == emails
