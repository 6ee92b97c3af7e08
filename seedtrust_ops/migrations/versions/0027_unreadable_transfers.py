"""Adds the table of transfers at the bank that cannot be read.

Revision ID: 0027
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table ops.unreadable_transfers (
            subject text primary key,
            bank_transfer_id text,
            idempotency_key text,
            reference text,
            problem text not null,
            first_seen_at timestamptz not null default now(),
            last_seen_at timestamptz not null default now(),
            next_inquiry_at timestamptz not null,
            attempts integer not null default 0,
            resolved_at timestamptz
        );
        create index unreadable_transfers_open on ops.unreadable_transfers (next_inquiry_at)
            where resolved_at is null;
        insert into ops.locks (name) values ('unreadable_transfers') on conflict do nothing
        """
    )


def downgrade() -> None:
    op.execute("drop table ops.unreadable_transfers")
