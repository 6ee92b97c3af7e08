"""Keeps when the bank accepted each transfer and for how many cents, and finds those that it has not settled.

Revision ID: 0019
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        alter table ops.transfer_evidence add bank_created_at timestamptz, add bank_amount_cents bigint;
        -- Both stay null for what the bank said before: what is open gets them with its next answer. The database has
        -- posted another amount than the one that was sent only where there is such an alert.
        update ops.transfer_evidence evidence
        set bank_amount_cents = -entry.amount_cents
        from public.ledger_entries entry
        where entry.huntington_transaction_id = evidence.transaction_id and entry.kind = 'disbursement'
          and exists (
              select from ops.alerts
              where rule = 'amount_differs' and subject = 'transaction ' || evidence.transaction_id);
        create index transfer_evidence_unsettled on ops.transfer_evidence (bank_created_at)
            where bank_status = 'accepted' and settled_as is null;
        -- The indexes of 0001 are each about one kind of entry, and the sum of a transaction's entries is about all.
        create index if not exists ledger_entries_by_transaction
            on public.ledger_entries (huntington_transaction_id) where huntington_transaction_id is not null;
        """
    )


def downgrade() -> None:
    op.execute(
        "drop index public.ledger_entries_by_transaction; drop index ops.transfer_evidence_unsettled;"
        "alter table ops.transfer_evidence drop bank_created_at, drop bank_amount_cents"
    )
