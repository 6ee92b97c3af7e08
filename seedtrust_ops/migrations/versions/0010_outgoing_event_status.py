"""Gives outgoing events the columns by which emails are claimed and recorded: status, attempted_at and claim_token.

One dispatcher sends both. Dropping a column is safe because nothing is deployed yet (docs/deploy.md).

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table ops.outgoing_events
            add column status        text not null default 'queued' check (status in ('queued', 'sent', 'failed')),
            add column attempted_at  timestamptz,
            add column claim_token   text;
        update ops.outgoing_events set status = 'sent' where sent_at is not null;
        update ops.outgoing_events set status = 'failed' where sent_at is null and abandoned_at is not null;
        drop index ops.outgoing_events_to_send;
        alter table ops.outgoing_events drop column abandoned_at;
        create index outgoing_events_to_send on ops.outgoing_events (destination, next_attempt_at, id)
            where status = 'queued';
        -- Every health tick reads the last status that was queued for the internal API.
        create index outgoing_events_by_destination on ops.outgoing_events (destination, id);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop index ops.outgoing_events_to_send, ops.outgoing_events_by_destination;
        alter table ops.outgoing_events add column abandoned_at timestamptz;
        update ops.outgoing_events set abandoned_at = created_at where status = 'failed';
        alter table ops.outgoing_events drop column status, drop column attempted_at, drop column claim_token;
        create index outgoing_events_to_send on ops.outgoing_events (destination, next_attempt_at)
            where sent_at is null and abandoned_at is null;
        """
    )
