"""Indexes report requests for users' turns, and removes the download links of reports that the outbox still holds.

Emails that are queued keep the object's key, from which the link is signed when they are sent.

Revision ID: 0014
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        r"""
        create index if not exists report_requests_unfinished
            on public.report_requests (user_id, requested_at, id) where status in (1, 2);
        create index if not exists report_requests_started on public.report_requests (user_id, started_at);
        update ops.notifications
        set variables = variables - 'link' - 'link_expires_at' || jsonb_build_object(
            'stored_file',
            case when variables ->> 'link' is not null then jsonb_build_object(
                'key', substring(variables ->> 'link' from '/(reports/[^?]+)'),
                'filename', substring(variables ->> 'link' from '/reports/[^?]+/([^?/]+)')
            ) end
        )
        where kind = 'report' and variables ? 'link';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop index public.report_requests_started;
        drop index public.report_requests_unfinished;
        """
    )
