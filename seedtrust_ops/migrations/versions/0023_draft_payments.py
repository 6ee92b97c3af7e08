"""Adds `ops.draft_payments`, the only way in which a job makes transactions: copies in a draft batch.

Revision ID: 0023
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        -- Each request gets a transaction for its own amount, with payee and account of the one that is copied, which
        -- was for the same payee.
        create function ops.draft_payments(request_ids bigint[], copied_ids bigint[]) returns bigint
            language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        declare
            batch bigint;
            drafted bigint;
        begin
            insert into public.huntington_batches (status) values ('draft') returning id into batch;
            insert into public.huntington_transactions (
                batch_id, disbursement_request_id, method, amount_cents, payee_name, routing_number,
                account_number_encrypted, account_number_last4, account_type)
            select batch, request.id, copied.method, request.amount_cents, copied.payee_name, copied.routing_number,
                   copied.account_number_encrypted, copied.account_number_last4, copied.account_type
            from unnest(request_ids, copied_ids) as wanted (request_id, copied_id)
            join public.disbursement_requests request on request.id = wanted.request_id and request.status = 'approved'
            join public.huntington_transactions copied on copied.id = wanted.copied_id
            join public.disbursement_requests original
                on original.id = copied.disbursement_request_id and original.payee_id = request.payee_id
            order by request.id;
            get diagnostics drafted = row_count;
            if drafted = 0 or drafted <> cardinality(request_ids) then
                raise exception using
                    errcode = 'check_violation',
                    message = 'only payments of approved requests, to accounts of the same payee, can be drafted';
            end if;
            return batch;
        end $$;
        revoke all on function ops.draft_payments from public;
        """
    )


def downgrade() -> None:
    op.execute("drop function ops.draft_payments(bigint[], bigint[])")
