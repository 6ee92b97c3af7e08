"""Two thousand letters go over one connection, in memory that does not grow with them."""

import pytest
from sqlalchemy import text

from seedtrust_ops_tests.domain.outbox.email_outbox import Post

MANY = 2_000
BOUND_MEGABYTES = 10


@pytest.mark.timeout(300)
def test_two_thousand_letters_go_over_one_connection_in_bounded_memory(post: Post) -> None:
    template = post.queue()
    with post.sessions.begin() as session:
        session.execute(
            text(
                "insert into ops.notifications (dedupe_key, kind, recipient_id, recipient_email, subject, variables)"
                " select 'approved-' || n, kind, recipient_id, recipient_email, '', variables"
                " from ops.notifications, generate_series(2, :many) n where id = :template"
            ),
            {"many": MANY, "template": template},
        )
    before = post.mailbox.control.totals()["connections"]

    with post.deliverer() as process:
        said, _ = process.communicate()

    sent, grown_megabytes = map(int, said.split())
    assert sent == MANY
    assert grown_megabytes < BOUND_MEGABYTES
    assert post.statuses() == {"sent": MANY}
    assert post.mailbox.control.totals() == {"letters": MANY, "connections": before + 1}
    assert len(set(post.mailbox.control.message_ids())) == MANY
