"""Renames columns, indexes, a function and stored shadow decisions of schema `ops` to standard terms.

Renaming is safe because nothing is deployed yet. From the first deployment on, migrations only add (docs/deploy.md).

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = (
    ("notifications", "claim", "claim_token"),
    ("notifications", "trouble", "last_error"),
    ("alerts", "told_at", "notified_at"),
    ("alerts", "told_severity", "notified_severity"),
    ("alerts", "resolution_told_at", "resolution_notified_at"),
    ("outgoing_events", "given_up_at", "abandoned_at"),
    ("outgoing_events", "trouble", "last_error"),
)
INDEXES = (
    ("alerts_to_tell", "alerts_to_notify"),
    ("alerts_resolutions_to_tell", "alerts_resolutions_to_notify"),
    ("transfer_attempts_by_word", "transfer_attempts_by_finished_at"),
)
SHADOW_DECISIONS = """
update ops.shadow_decisions d set {column} = n.{new}
  from (values ('decision', 'looked', 'evaluated'),
               ('decision', 'write letter', 'send email'),
               ('decision', 'make report', 'generate report'),
               ('decision', 'keep Parquet file', 'write Parquet file'),
               ('decision', 'pending again', 'return to pending'),
               ('decision', 'queue again', 'requeue'),
               ('subject', 'the bank''s feed', 'bank feed')) as n (kind, before, after)
 where n.kind = '{column}' and d.{column} = n.{old}
"""
SWITCH_DEFAULTS = "alter table ops.switches alter reason set default '{}', alter set_by set default '{}'"


def upgrade() -> None:
    for table, old, new in COLUMNS:
        op.execute(f"alter table ops.{table} rename column {old} to {new}")
    for old, new in INDEXES:
        op.execute(f"alter index ops.{old} rename to {new}")
    op.execute("alter function ops.tell_sensors() rename to notify_sensors")
    for column in ("decision", "subject"):
        op.execute(SHADOW_DECISIONS.format(column=column, old="before", new="after"))
    op.execute(SWITCH_DEFAULTS.format("no reason given", "unknown"))


def downgrade() -> None:
    op.execute(SWITCH_DEFAULTS.format("no reason was given", "somebody"))
    for column in ("decision", "subject"):
        op.execute(SHADOW_DECISIONS.format(column=column, old="after", new="before"))
    op.execute("alter function ops.notify_sensors() rename to tell_sensors")
    for old, new in INDEXES:
        op.execute(f"alter index ops.{new} rename to {old}")
    for table, old, new in COLUMNS:
        op.execute(f"alter table ops.{table} rename column {new} to {old}")
