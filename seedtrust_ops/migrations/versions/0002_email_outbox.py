"""Adds retries, claims, the last error and attachments to notifications.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table ops.notifications
            add column next_attempt_at  timestamptz not null default now(),
            add column attempted_at     timestamptz,
            add column claim            text,
            add column trouble          text;
        create index notifications_to_send on ops.notifications (kind, next_attempt_at, id) where status = 'queued';

        create table ops.notification_attachments (
            notification_id  bigint primary key references ops.notifications (id) on delete cascade,
            filename         text not null,
            media_type       text not null,
            content          bytea not null
        );
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop table ops.notification_attachments;
        drop index ops.notifications_to_send;
        alter table ops.notifications
            drop column next_attempt_at, drop column attempted_at, drop column claim, drop column trouble;
        """
    )
