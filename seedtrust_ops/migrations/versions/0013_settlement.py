"""Lets people settle transfers: ledger entries that correct others, and the audit of who settled what.

Revision ID: 0013
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ACTS_AS_OPERATOR = """pg_has_role(current_user, to_regrole('seedtrust_ops_operator'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""

# What an operator may change of payments only by settling a transfer, in the same transaction.
OPERATOR_GUARD = """
create function ops.guard_operator() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    ranks text[] := array['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'];
    is_allowed boolean;
begin
    if tg_table_name = 'huntington_transactions' then
        is_allowed := exists (
            select from ops.transfer_evidence
            where transaction_id = new.id and settled_as = new.status and changed_at >= now());
    elsif tg_table_name = 'disbursement_requests' then
        is_allowed := exists (
            select from ops.transfer_evidence
            where disbursement_request_id = new.id and settled_as is not null and changed_at >= now());
    elsif tg_table_name = 'huntington_batches' then
        is_allowed := new.status in ('completed', 'completed_with_errors', 'failed') and exists (
            select from ops.transfer_evidence evidence
            join public.huntington_transactions transaction on transaction.id = evidence.transaction_id
            where transaction.batch_id = new.id and settled_as is not null and changed_at >= now());
    elsif tg_table_name = 'transfer_attempts' then
        is_allowed := new.outcome = 'settled';
    else
        is_allowed := array_position(ranks, new.severity) >= array_position(ranks, old.severity);
    end if;
    if not is_allowed then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('an operator changes %s only by settling a transfer', tg_table_name);
    end if;
    return null;
end $$;
"""
GUARDED = (
    ("seedtrust_ops_guard_operator", "update", "public.huntington_transactions"),
    ("seedtrust_ops_guard_operator", "update", "public.disbursement_requests"),
    ("seedtrust_ops_guard_operator", "update", "public.huntington_batches"),
    ("guard_operator", "insert", "ops.transfer_attempts"),
    ("guard_operator", "update of severity", "ops.alerts"),
)


def upgrade() -> None:
    op.execute(OPERATOR_GUARD)
    for name, event, table in GUARDED:
        op.execute(
            f"create trigger {name} after {event} on {table} for each row when ({ACTS_AS_OPERATOR}) "
            "execute function ops.guard_operator()"
        )
    op.execute(
        """
        create table ops.ledger_corrections (
            ledger_entry_id  bigint primary key,
            transaction_id   bigint not null,
            recorded_at      timestamptz not null default now()
        );
        create index ledger_corrections_by_transaction on ops.ledger_corrections (transaction_id);
        create trigger append_only before update or delete on ops.ledger_corrections
            for each row execute function ops.refuse_change();
        create trigger never_emptied before truncate on ops.ledger_corrections
            for each statement execute function ops.refuse_change();

        -- The only way in which a person's decision moves a balance: an entry without a transaction id, linked to the
        -- transaction that it corrects. It never makes the transaction's entries add up to anything but paid once or
        -- not at all.
        create function ops.post_ledger_correction(corrected bigint, cents bigint, memo text) returns bigint
            language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        declare
            sent record;
            booked bigint;
            entry bigint;
        begin
            select account_id, amount_cents, settled_as into sent
                from ops.transfer_evidence where transaction_id = corrected for update;
            select coalesce(sum(amount_cents), 0) into booked from public.ledger_entries
                where huntington_transaction_id = corrected or id in (
                    select ledger_entry_id from ops.ledger_corrections where transaction_id = corrected);
            if sent.account_id is null or sent.settled_as is null or booked + cents > 0 or (
                booked + cents <> 0 and sent.settled_as <> 'completed')
            then
                raise exception using
                    errcode = 'check_violation',
                    message = format('no correction of %s cents can be posted for transaction %s: a person must have '
                                     'settled it, and its entries must add up to one payment or none',
                                     cents, corrected);
            end if;
            perform from public.accounts where id = sent.account_id for update;
            insert into public.ledger_entries (account_id, amount_cents, kind, memo)
                values (sent.account_id, cents, case when cents > 0 then 'reversal' else 'disbursement' end, memo)
                returning id into entry;
            update public.accounts set balance_cents = balance_cents + cents where id = sent.account_id;
            insert into ops.ledger_corrections (ledger_entry_id, transaction_id) values (entry, corrected);
            return entry;
        end $$;
        revoke all on function ops.post_ledger_correction from public;

        create function ops.audit_settlement() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
        begin
            perform ops.record_audit_event('settle', format('transaction %s: %s', new.transaction_id, new.settled_as));
            return null;
        end $$;
        create trigger audit after update of settled_as on ops.transfer_evidence
            for each row when (new.settled_as is not null) execute function ops.audit_settlement();
        """
    )


def downgrade() -> None:
    for name, _, table in GUARDED:
        op.execute(f"drop trigger {name} on {table}")
    op.execute("drop function ops.guard_operator()")
    op.execute(
        """
        drop trigger audit on ops.transfer_evidence;
        drop function ops.audit_settlement(), ops.post_ledger_correction(bigint, bigint, text);
        drop table ops.ledger_corrections;
        """
    )
