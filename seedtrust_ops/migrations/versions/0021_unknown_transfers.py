"""Stores what the bank reports and no transaction explains, books what a person has explained, and keeps the cutover.

As in 0011 and 0013, the guards bind the jobs' role and operators and nobody else.

Revision ID: 0021
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

ACTS_AS_JOBS = """pg_has_role(current_user, to_regrole('seedtrust_ops_app'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""
ACTS_AS_OPERATOR = """pg_has_role(current_user, to_regrole('seedtrust_ops_operator'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""

TABLES = """
create table ops.unknown_transfers (
    bank_transfer_id         text primary key,
    idempotency_key          text not null,
    reference                text not null,
    status                   text not null,
    method                   text not null,
    amount_cents             bigint not null,
    created_at               timestamptz not null,
    updated_at               timestamptz not null,
    problem                  text not null,
    first_seen_at            timestamptz not null default now(),
    transaction_id           bigint,
    explained_at             timestamptz,
    explained_by             text,
    explanation              text,
    disbursement_request_id  bigint,
    account_id               bigint
);
create index unknown_transfers_unexplained on ops.unknown_transfers (bank_transfer_id) where explained_at is null;
create index unknown_transfers_by_reference on ops.unknown_transfers (reference);
create index unknown_transfers_by_request on ops.unknown_transfers (disbursement_request_id)
    where disbursement_request_id is not null;
create trigger never_deleted before delete on ops.unknown_transfers
    for each row execute function ops.refuse_change();
create trigger never_emptied before truncate on ops.unknown_transfers
    for each statement execute function ops.refuse_change();

create table ops.cutovers (
    job  text primary key,
    at   timestamptz not null default now()
);

alter table ops.ledger_corrections
    alter transaction_id drop not null,
    add column bank_transfer_id text,
    add constraint ledger_corrections_of_one check (num_nonnulls(transaction_id, bank_transfer_id) = 1);
create index ledger_corrections_by_bank_transfer on ops.ledger_corrections (bank_transfer_id)
    where bank_transfer_id is not null;
"""

GUARDS = """
create function ops.guard_unknown_transfer() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if new.explained_at is not null and new.explained_at is distinct from old.explained_at and not exists (
        select from public.huntington_transactions where id = new.transaction_id
        union all
        select from ops.transfer_evidence where transaction_id = new.transaction_id and settled_as is not null)
    then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('the database role of the jobs explains transfers only by transactions; bank transfer %s',
                             new.bank_transfer_id);
    end if;
    return null;
end $$;

create function ops.guard_explanation() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if new.explained_by is null or new.explained_at is null
       or new.explained_at not between now() and clock_timestamp()
    then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('an operator changes an unknown transfer only by explaining it; bank transfer %s',
                             new.bank_transfer_id);
    end if;
    return null;
end $$;
"""

AUDIT = f"""
create function ops.audit_explanation() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform ops.record_audit_event('explain', concat(
        'bank transfer ', new.bank_transfer_id,
        ': request ' || new.disbursement_request_id, ': transaction ' || new.transaction_id), new.explanation);
    return null;
end $$;
create trigger audit after update on ops.unknown_transfers for each row when (
    new.explained_at is not null and new.explained_by is not null
    and ((new.explained_by, new.explanation, new.disbursement_request_id)
             is distinct from (old.explained_by, old.explanation, old.disbursement_request_id)
         or current_setting('seedtrust.os_user', true) <> '' or ({ACTS_AS_OPERATOR})))
    execute function ops.audit_explanation();
"""

# The only way in which an explanation moves a balance. What is booked follows from what the bank said last: one
# payment, or nothing, or both its entries if the transfer had come back already.
BOOKING = """
create function ops.post_explained_transfer(explained text, memo text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    sent record;
    booked bigint;
    cents bigint;
    posted bigint := 0;
    entry bigint;
begin
    select transfer.*, account.id as request_account_id into sent
        from ops.unknown_transfers transfer
        left join public.disbursement_requests request on request.id = transfer.disbursement_request_id
        left join public.accounts account on account.case_id = request.case_id
        where transfer.bank_transfer_id = explained for update of transfer;
    if sent.explained_at is null or sent.explained_by is null or sent.account_id is null
       or sent.account_id is distinct from sent.request_account_id
    then
        raise exception using
            errcode = 'check_violation',
            message = format('bank transfer %s cannot be booked: a person must have explained it for a request whose '
                             'case has an account', explained);
    end if;
    perform from public.accounts where id = sent.account_id for update;
    select coalesce(sum(amount_cents), 0) into booked from public.ledger_entries
        where id in (select ledger_entry_id from ops.ledger_corrections where bank_transfer_id = explained);
    foreach cents in array case
        when sent.status in ('accepted', 'completed') then array[-sent.amount_cents - booked]
        when sent.status = 'returned' and not exists (
            select from ops.ledger_corrections where bank_transfer_id = explained
        ) then array[-sent.amount_cents, sent.amount_cents]
        else array[-booked] end
    loop
        if cents <> 0 then
            insert into public.ledger_entries (account_id, amount_cents, kind, memo)
                values (sent.account_id, cents, case when cents > 0 then 'reversal' else 'disbursement' end, memo)
                returning id into entry;
            update public.accounts set balance_cents = balance_cents + cents where id = sent.account_id;
            insert into ops.ledger_corrections (ledger_entry_id, bank_transfer_id) values (entry, explained);
            posted := posted + cents;
        end if;
    end loop;
    return posted;
end $$;
revoke all on function ops.post_explained_transfer from public;
"""

# As in 0013, and for requests that an explanation books.
OPERATOR_GUARD = """
create or replace function ops.guard_operator() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
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
            where disbursement_request_id = new.id and settled_as is not null and changed_at >= now()
            {explained});
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
            message = format('an operator changes %s only by settling{or_explaining} a transfer', tg_table_name);
    end if;
    return null;
end $$;
"""
EXPLAINED = """union all
            select from ops.unknown_transfers
            where disbursement_request_id = new.id and explained_at >= now()"""

TRIGGERS = (
    ("guard", "update of explained_at", ACTS_AS_JOBS, "guard_unknown_transfer"),
    ("guard_operator", "update", ACTS_AS_OPERATOR, "guard_explanation"),
)


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GUARDS)
    for name, event, acts, function in TRIGGERS:
        op.execute(
            f"create constraint trigger {name} after {event} on ops.unknown_transfers deferrable initially immediate "
            f"for each row when ({acts}) execute function ops.{function}()"
        )
    op.execute(AUDIT)
    op.execute(BOOKING)
    op.execute(OPERATOR_GUARD.format(explained=EXPLAINED, or_explaining=" or explaining"))


def downgrade() -> None:
    op.execute(OPERATOR_GUARD.format(explained="", or_explaining=""))
    op.execute(
        """
        drop function ops.post_explained_transfer(text, text);
        drop table ops.unknown_transfers, ops.cutovers;
        drop function ops.guard_unknown_transfer(), ops.guard_explanation(), ops.audit_explanation();
        alter table ops.ledger_corrections drop column bank_transfer_id;
        """
    )
