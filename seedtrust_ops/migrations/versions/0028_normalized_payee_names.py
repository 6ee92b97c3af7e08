"""Records whether the bank got a transfer's payee name normalized: what was sent before keeps its first body.

Revision ID: 0028
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # False also for what a worker of the release before still sends.
    op.execute("alter table ops.transfer_evidence add column payee_name_normalized boolean not null default false")


def downgrade() -> None:
    op.execute("alter table ops.transfer_evidence drop column payee_name_normalized")
