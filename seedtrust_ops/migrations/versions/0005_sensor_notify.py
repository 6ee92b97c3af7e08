"""Notifies waiting sensors when a batch is queued or a request becomes approvable (triggers with NOTIFY).

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create function ops.tell_sensors() returns trigger language plpgsql as $$
        begin
            perform pg_notify(tg_argv[0], '');
            return null;
        end
        $$;

        create trigger seedtrust_ops_batch_queued
            after insert or update of status on public.huntington_batches
            for each row when (new.status = 'queued')
            execute function ops.tell_sensors('seedtrust_batch_queued');

        create trigger seedtrust_ops_request_pending
            after insert or update on public.disbursement_requests
            for each row when (new.status = 'pending' and not new.on_hold)
            execute function ops.tell_sensors('seedtrust_request_pending');
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop trigger seedtrust_ops_request_pending on public.disbursement_requests;
        drop trigger seedtrust_ops_batch_queued on public.huntington_batches;
        drop function ops.tell_sensors();
        """
    )
