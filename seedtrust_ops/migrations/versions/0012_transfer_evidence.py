"""Creates what is known of each transfer at the bank, and the status of a request before it was marked paid.

Revision ID: 0012
"""

import importlib

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


# As in 0011, but by the order that was sent, whatever has become of the transaction since.
LEDGER = """
create or replace function ops.post_ledger_entries(
    entry_kind text, transaction_ids bigint[], amounts_cents bigint[], memos text[]
) returns setof bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    entry record;
begin
    -- Always in the order of the accounts, so that two transactions that post to the same accounts cannot deadlock.
    for entry in
        select wanted.id, wanted.cents, wanted.memo, coalesce(disbursed.account_id, account.id) as account_id,
               case entry_kind
                   -- What is posted is the bank's amount. If it is not ours, a CRITICAL alert has said so.
                   when 'disbursement' then transaction.status in ('completed', 'returned') and wanted.cents < 0
                       and (wanted.cents = -sent.amount_cents or exists (
                           select from ops.alerts
                           where rule = 'amount_differs' and subject = 'transaction ' || transaction.id))
                   when 'reversal' then transaction.status = 'returned' and wanted.cents = -disbursed.amount_cents
               end as is_allowed
        from unnest(transaction_ids, amounts_cents, memos) as wanted (id, cents, memo)
        left join public.huntington_transactions transaction on transaction.id = wanted.id
        left join ops.transfer_evidence sent on sent.transaction_id = wanted.id
        left join public.accounts account on account.id = sent.account_id
        -- As in `guard_request_status`, `limit` makes it a lookup by the unique index.
        left join lateral (
            select account_id, amount_cents from public.ledger_entries
            where huntington_transaction_id = wanted.id and kind = 'disbursement' limit 1) disbursed on true
        order by account_id, wanted.id
    loop
        if entry.account_id is null or entry.is_allowed is not true then
            raise exception using
                errcode = 'check_violation',
                message = format('no %s of %s cents can be posted for transaction %s: either its status or amount does '
                                 'not match, or it has no account', entry_kind, entry.cents, entry.id);
        end if;
        insert into public.ledger_entries (account_id, amount_cents, kind, huntington_transaction_id, memo)
        values (entry.account_id, entry.cents, entry_kind, entry.id, entry.memo)
        on conflict do nothing;
        if found then
            update public.accounts set balance_cents = balance_cents + entry.cents where id = entry.account_id;
            return next entry.id;
        end if;
    end loop;
end $$;
"""

# As in 0011, but a return restores the status that the request had before it was paid.
REQUESTS = """
create or replace function ops.guard_request_status() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    is_as_the_ledger boolean;
begin
    if old.status = 'pending' and new.status = 'approved' then
        if new.approved_by like 'auto:_%' and not new.on_hold and new.paid_at is not distinct from old.paid_at
           and new.approved_at between now() - interval '1 minute' and clock_timestamp() then
            return null;
        end if;
    elsif (new.approved_at, new.approved_by) is not distinct from (old.approved_at, old.approved_by) then
        -- The kinds are written out, because the ledger's indexes by transaction are partial, and `limit` makes each a
        -- lookup by such an index, however many entries the planner expects.
        if new.status = 'paid' then
            select exists (
                select from ops.transfer_evidence sent, lateral (
                    select from public.ledger_entries
                    where huntington_transaction_id = sent.transaction_id and kind = 'disbursement' limit 1) entry
                where sent.disbursement_request_id = new.id
            ) and old.status <> 'paid' into is_as_the_ledger;
        else
            select exists (
                select from ops.transfer_evidence sent, lateral (
                    select from public.ledger_entries
                    where huntington_transaction_id = sent.transaction_id and kind = 'reversal' limit 1) entry
                where sent.disbursement_request_id = new.id
            ) and old.status = 'paid' and new.status = coalesce(
                (select status from ops.statuses_before_payment where disbursement_request_id = new.id), 'approved'
            ) into is_as_the_ledger;
        end if;
        if is_as_the_ledger then
            return null;
        end if;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = format('the database role of the jobs approves pending requests as auto:..., and marks what the '
                         'ledger shows as paid or returned; request %s: %s to %s', new.id, old.status, new.status);
end $$;
"""

# As in 0011, but for an alert that now resolves itself, and a new one.
ALERTS = """
create or replace function ops.guard_alert() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    ranks text[] := array['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'];
    -- CLOSED_BY_PEOPLE in domain/alerts/store.py.
    closed_by_people text[] := array[
        'amount_differs', 'bank_contradicts_itself', 'idempotency_key_reused', 'paid_without_approval',
        'request_paid_twice', 'second_transfer', 'transfer_ambiguous', 'transfer_not_booked'];
begin
    if old.resolved_at is null
       and array_position(ranks, new.severity) >= array_position(ranks, old.severity)
       and (new.resolved_at is null or (
           old.rule <> all (closed_by_people)
           and new.resolved_at between now() - interval '1 minute' and clock_timestamp()))
    then
        return null;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = format('the database role of the jobs resolves alerts whose cause it can see gone, and neither '
                         'reopens alerts nor lowers their severity; alert %s (%s)', new.id, new.rule);
end $$;
"""


def upgrade() -> None:
    op.execute(
        """
        create table ops.transfer_evidence (
            transaction_id            bigint primary key,
            state                     text not null
                check (state in ('in_flight', 'moved', 'not_moved', 'contradicted')),
            disbursement_request_id   bigint,
            account_id                bigint,
            method                    text not null,
            amount_cents              bigint not null,
            payee_name                text not null,
            routing_number            text not null,
            account_number_encrypted  text not null,
            account_number_last4      text not null,
            account_type              text not null,
            bank_transfer_id          text,
            bank_status               text,
            bank_updated_at           timestamptz,
            unknown_to_bank_at        timestamptz,
            missing_since             timestamptz,
            settled_as                text check (settled_as in ('completed', 'failed', 'returned')),
            settled_seen_at           timestamptz,
            changed_at                timestamptz not null default now()
        );
        create index transfer_evidence_open on ops.transfer_evidence (transaction_id)
            where state in ('in_flight', 'contradicted') or missing_since is not null;
        create index transfer_evidence_by_account on ops.transfer_evidence (account_id)
            where state in ('in_flight', 'contradicted');
        create index transfer_evidence_by_request on ops.transfer_evidence (disbursement_request_id);

        create table ops.statuses_before_payment (
            disbursement_request_id  bigint primary key,
            status                   text not null check (status <> 'paid'),
            recorded_at              timestamptz not null default now()
        );

        -- Transfers of our own workers that are at the bank, or may be, when this revision is installed.
        insert into ops.transfer_evidence (
            transaction_id, state, disbursement_request_id, account_id, method, amount_cents, payee_name,
            routing_number, account_number_encrypted, account_number_last4, account_type, bank_transfer_id,
            bank_status, unknown_to_bank_at
        )
        select t.id,
               case when t.status = 'completed' then 'moved'
                    when t.status = 'returned' or last.outcome in ('refused', 'rejected') then 'not_moved'
                    when last.outcome in ('not_sent', 'unauthorized', 'rate_limited') and doubt.transaction_id is null
                        then 'not_moved'
                    else 'in_flight' end,
               t.disbursement_request_id, a.id, t.method, t.amount_cents, t.payee_name, t.routing_number,
               t.account_number_encrypted, t.account_number_last4, t.account_type, t.bank_transfer_id,
               case t.status when 'completed' then 'completed' when 'returned' then 'returned'
                             when 'submitted' then 'accepted' end,
               case when t.status in ('pending', 'failed') then doubt.unknown_to_bank_at end
        from public.huntington_transactions t
        join lateral (
            select outcome from ops.transfer_attempts
            where transaction_id = t.id order by id desc limit 1
        ) last on true
        left join (
            select transaction_id, max(finished_at) filter (where outcome = 'unknown_to_bank') as unknown_to_bank_at
            from ops.transfer_attempts
            where outcome in ('unknown', 'unknown_to_bank', 'key_reused') group by 1
        ) doubt on doubt.transaction_id = t.id
        left join public.disbursement_requests r on r.id = t.disbursement_request_id
        left join public.accounts a on a.case_id = r.case_id;
        """
    )
    for function in (LEDGER, REQUESTS, ALERTS):
        op.execute(function)


def downgrade() -> None:
    before = importlib.import_module("seedtrust_ops.migrations.versions.0011_jobs_role_guards_and_audit")
    for function in (before.LEDGER, before.REQUESTS, before.ALERTS):
        op.execute(function.replace("create function", "create or replace function"))
    op.execute("drop table ops.statuses_before_payment; drop table ops.transfer_evidence")
