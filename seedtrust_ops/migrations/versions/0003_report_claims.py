"""Who works on a report request, how often it was tried, and when it may be tried again.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table ops.report_claims (
            request_id  bigint primary key,
            token       text not null,
            tries       integer not null,
            claimed_at  timestamptz not null default now(),
            not_before  timestamptz
        );
        """
    )


def downgrade() -> None:
    op.execute("drop table ops.report_claims")
