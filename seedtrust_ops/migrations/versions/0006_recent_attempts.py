"""Adds an index to find the bank's recent responses, for the comparison with the bank's feed.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create index transfer_attempts_by_word on ops.transfer_attempts (finished_at)
            where bank_transfer_id is not null
        """
    )


def downgrade() -> None:
    op.execute("drop index ops.transfer_attempts_by_word")
