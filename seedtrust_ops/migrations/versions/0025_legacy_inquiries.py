"""Remembers when the bank is asked again about failures of the legacy worker, and asks about what people completed.

Revision ID: 0025
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table ops.legacy_inquiries (
            transaction_id   bigint primary key,
            inquiries        bigint not null,
            next_inquiry_at  timestamptz not null
        );

        -- Revision 0012 believed whoever had set a transaction that we sent to `completed`. The bank never said so, and
        -- is asked now.
        update ops.transfer_evidence evidence
        set state = 'in_flight', bank_status = null, changed_at = now()
        where state = 'moved' and bank_updated_at is null and settled_as is null
          and exists (
              select from ops.transfer_attempts
              where transaction_id = evidence.transaction_id and attempt > 0)
          and not exists (
              select from ops.transfer_attempts
              where transaction_id = evidence.transaction_id and outcome in ('completed', 'returned'));
        """
    )


def downgrade() -> None:
    op.execute("drop table ops.legacy_inquiries")
