"""Lets alerts go to chat and paging services, a channel and a destination of their own.

Revision ID: 0020
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

REPLACE = """
alter table ops.alert_notifications drop constraint alert_notifications_channel_check;
alter table ops.alert_notifications add constraint alert_notifications_channel_check
    check (channel in ('email', 'posthog', 'internal_api', 'digest'{service})) not valid;
alter table ops.outgoing_events drop constraint outgoing_events_destination_check;
alter table ops.outgoing_events add constraint outgoing_events_destination_check
    check (destination in ('posthog', 'internal_api'{service})) not valid;
"""


def upgrade() -> None:
    # Every stored value was allowed before, so nothing has to be checked again.
    op.execute(REPLACE.format(service=", 'alert_urls'"))


def downgrade() -> None:
    # What was sent stays as evidence: the constraint is for new rows.
    op.execute(REPLACE.format(service=""))
