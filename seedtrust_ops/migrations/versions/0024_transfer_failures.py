"""Records every transaction that fails or is returned, in the transaction that says so, until people are notified.

Revision ID: 0024
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

FAILURES = """
create table ops.transfer_failures (
    id                       bigint generated always as identity primary key,
    transaction_id           bigint not null,
    batch_id                 bigint not null,
    generation               bigint not null,
    is_of_run                boolean not null,
    status                   text not null check (status in ('failed', 'returned')),
    disbursement_request_id  bigint,
    amount_cents             bigint not null,
    payee_name               text not null,
    reason                   text,
    failed_at                timestamptz not null default clock_timestamp(),
    notified_at              timestamptz
);
create index transfer_failures_to_notify on ops.transfer_failures (id) where notified_at is null;

-- Whoever changes the status, also a person: no path to a failure can forget it. What the legacy system fails in
-- batches that this project never had is the legacy system's.
create function ops.record_transfer_failure() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    claims bigint;
    has_worker boolean;
begin
    select generation, token is not null and expires_at > clock_timestamp() into claims, has_worker
        from ops.batch_leases where batch_id = new.batch_id;
    if coalesce(claims, 0) = 0
       and not exists (select from ops.transfer_evidence where transaction_id = new.id)
    then
        return null;
    end if;
    insert into ops.transfer_failures (
        transaction_id, batch_id, generation, is_of_run, status, disbursement_request_id, amount_cents, payee_name,
        reason)
    values (
        new.id, new.batch_id, coalesce(claims, 0),
        coalesce(has_worker, false) and new.status = 'failed' and old.status in ('pending', 'processing'),
        new.status, new.disbursement_request_id, new.amount_cents, left(new.payee_name, 2000),
        left(new.failure_reason, 2000));
    return null;
end $$;
create trigger seedtrust_ops_record_failure after update of status on public.huntington_transactions
    for each row when (new.status in ('failed', 'returned') and new.status is distinct from old.status)
    execute function ops.record_transfer_failure();
insert into ops.locks (name) values ('transfer_failures');
"""


def upgrade() -> None:
    op.execute(FAILURES)


def downgrade() -> None:
    op.execute(
        """
        drop trigger seedtrust_ops_record_failure on public.huntington_transactions;
        drop function ops.record_transfer_failure();
        drop table ops.transfer_failures;
        alter table ops.locks disable trigger append_only;
        delete from ops.locks where name = 'transfer_failures';
        alter table ops.locks enable trigger append_only;
        """
    )
