"""Lets acknowledgements of alerts end, and finds failures that are a person's input without reading all errors.

Revision ID: 0018
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "alter table ops.alerts add column acknowledged_until timestamptz, add column acknowledged_severity text"
    )
    # What was acknowledged for good is notified once more if it is still open.
    op.execute(
        "update ops.alerts set acknowledged_until = acknowledged_at + interval '4 hours', "
        "acknowledged_severity = severity where acknowledged_at is not null and resolved_at is null"
    )
    op.execute("create index if not exists errors_of_input on public.errors (job_run_id) where context ? 'input_error'")


def downgrade() -> None:
    op.execute("drop index if exists public.errors_of_input")
    op.execute("alter table ops.alerts drop column acknowledged_severity, drop column acknowledged_until")
