"""Creates claims on report requests: the worker's token, the number of tries, and the time of the next try.

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
