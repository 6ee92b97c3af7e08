"""Guards what the jobs' database role may write, records what people do in `ops.audit_events`, and adds `ops.locks`.

The guards bind roles that act with the privileges of `seedtrust_ops_app` and nobody else: not the platform's
applications, not the owners of the tables, and on a laptop, where that role may not exist, nobody at all. See
docs/decisions/database-guards.md.

Revision ID: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Every session that acts as the jobs' role, also through a login of its own that inherits it. Superusers are members of
# every role, so they are left out with the database's owner; both could drop the triggers. Inside a `security definer`
# function, `current_user` is the function's owner.
ACTS_AS_JOBS = """pg_has_role(current_user, to_regrole('seedtrust_ops_app'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""

REFUSE = """
create function ops.refuse_to_jobs() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'insufficient_privilege',
        message = 'the database role of the jobs ' || tg_argv[0];
end $$;
"""

# Constraint triggers, because those can be deferred: a dry run in shadow mode undoes what the legacy system did, in a
# transaction that is always rolled back. Whatever is deferred is still checked before a commit.
GUARD = """
create constraint trigger {name} after {event} on {table} deferrable initially immediate
    for each row when ({condition} and {acts_as_jobs})
    execute function ops.{function};
"""

# The only way in which the jobs' role moves a balance. It decides nothing: callers say what the bank reported.
LEDGER = """
create function ops.post_ledger_entries(
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
                       and (wanted.cents = -transaction.amount_cents or exists (
                           select from ops.alerts
                           where rule = 'amount_differs' and subject = 'transaction ' || transaction.id))
                   when 'reversal' then transaction.status = 'returned' and wanted.cents = -disbursed.amount_cents
               end as is_allowed
        from unnest(transaction_ids, amounts_cents, memos) as wanted (id, cents, memo)
        left join public.huntington_transactions transaction on transaction.id = wanted.id
        left join public.disbursement_requests request on request.id = transaction.disbursement_request_id
        left join public.accounts account on account.case_id = request.case_id
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
revoke all on function ops.post_ledger_entries from public;
"""

REQUESTS = """
create function ops.guard_request_status() returns trigger
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
                select from public.huntington_transactions transaction, lateral (
                    select from public.ledger_entries
                    where huntington_transaction_id = transaction.id and kind = 'disbursement' limit 1) entry
                where transaction.disbursement_request_id = new.id
            ) and old.status <> 'paid' into is_as_the_ledger;
        else
            select exists (
                select from public.huntington_transactions transaction, lateral (
                    select from public.ledger_entries
                    where huntington_transaction_id = transaction.id and kind = 'reversal' limit 1) entry
                where transaction.disbursement_request_id = new.id
            ) and old.status = 'paid' and new.status = 'approved' into is_as_the_ledger;
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

ATTEMPTS = """
create function ops.guard_attempt() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    now_recorded boolean := coalesce(new.finished_at, new.started_at)
        between clock_timestamp() - interval '1 minute' and clock_timestamp();
begin
    if new.outcome = 'started' then
        if now_recorded and new.attempt > 0 and new.finished_at is null and new.bank_transfer_id is null then
            return null;
        end if;
    -- An outcome belongs to an attempt that was recorded before. The bank may also report a transfer that our workers
    -- never sent: attempt 0.
    elsif now_recorded and new.finished_at is not null and (
        (new.attempt = 0 and new.bank_transfer_id is not null)
        or exists (
            select from ops.transfer_attempts earlier
            where earlier.transaction_id = new.transaction_id and earlier.id < new.id
              and earlier.attempt = new.attempt and earlier.started_at = new.started_at)
    ) then
        return null;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = format('the database role of the jobs records attempts as they happen; transaction %s: attempt %s, '
                         '%s', new.transaction_id, new.attempt, new.outcome);
end $$;
"""

ALERTS = """
create function ops.guard_alert() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    ranks text[] := array['LOW', 'MEDIUM', 'HIGH', 'CRITICAL'];
    -- CLOSED_BY_PEOPLE in domain/alerts/store.py.
    closed_by_people text[] := array[
        'amount_differs', 'bank_contradicts_itself', 'idempotency_key_reused', 'request_paid_twice', 'second_transfer',
        'transfer_ambiguous', 'transfer_forgotten_by_bank', 'transfer_not_booked'];
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

GUARDS = (
    ("seedtrust_ops_guard_balance", "update of balance_cents", "public.accounts",
     "old.balance_cents <> new.balance_cents",
     "refuse_to_jobs('moves a balance only by posting ledger entries')"),
    ("seedtrust_ops_guard_status", "update", "public.disbursement_requests",
     "(old.status, old.approved_at, old.approved_by, old.paid_at) is distinct from"
     " (new.status, new.approved_at, new.approved_by, new.paid_at)",
     "guard_request_status()"),
    ("seedtrust_ops_guard_status", "update of status", "public.huntington_batches",
     "old.status in ('draft', 'held') and new.status in ('queued', 'processing')",
     "refuse_to_jobs('sends no batch that a person has not queued, or has put on hold')"),
    ("seedtrust_ops_guard_status", "update of status", "public.huntington_transactions",
     "((old.status = 'completed' and new.status not in ('completed', 'returned'))"
     " or (old.status = 'returned' and new.status <> 'returned'))",
     "refuse_to_jobs('makes no transaction unpaid, except by a return')"),
    ("guard", "insert", "ops.transfer_attempts", "true", "guard_attempt()"),
    ("guard", "update", "ops.alerts", "old is distinct from new", "guard_alert()"),
)  # fmt: skip

AUDIT = """
create table ops.audit_events (
    id       bigint generated by default as identity primary key,
    at       timestamptz not null default clock_timestamp(),
    actor    text not null default session_user,
    action   text not null,
    subject  text not null,
    reason   text not null default '',
    detail   jsonb not null default '{}'
);
create trigger append_only before update or delete on ops.audit_events
    for each row execute function ops.refuse_change();
create trigger never_emptied before truncate on ops.audit_events
    for each statement execute function ops.refuse_change();

-- Only the trigger functions below call it. `session_user` is who logged in; the settings are what a command says of
-- itself for its transaction (domain/audit.py).
create function ops.record_audit_event(action text, subject text, reason text default '') returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into ops.audit_events (actor, action, subject, reason, detail)
    values (
        session_user, action, subject, coalesce(nullif(current_setting('seedtrust.reason', true), ''), reason),
        jsonb_strip_nulls(jsonb_build_object(
            'os_user', nullif(current_setting('seedtrust.os_user', true), ''),
            'as', nullif(current_setting('seedtrust.as', true), ''),
            'rotation', nullif(current_setting('seedtrust.key_rotation', true), ''))))
$$;
revoke all on function ops.record_audit_event from public;

create function ops.audit_switch() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'INSERT' then
        perform ops.record_audit_event('halt', new.name, new.reason);
    else
        perform ops.record_audit_event('resume', old.name);
    end if;
    return null;
end $$;
create trigger audit after insert or delete on ops.switches for each row execute function ops.audit_switch();

create function ops.audit_alert() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform ops.record_audit_event(tg_argv[0], format('alert %s: %s, %s', new.id, new.rule, new.subject));
    return null;
end $$;
create trigger audit_acknowledgement after update of acknowledged_at on ops.alerts
    for each row when (new.acknowledged_at is not null and new.acknowledged_at is distinct from old.acknowledged_at)
    execute function ops.audit_alert('acknowledge');
-- What the jobs resolve is in `ops.alerts`. On a laptop they run as a superuser, as people's psql does.
create trigger audit_resolution after update of resolved_at on ops.alerts
    for each row when (
        old.resolved_at is null and new.resolved_at is not null
        and (current_setting('seedtrust.os_user', true) <> ''
             or not coalesce(pg_has_role(current_user, to_regrole('seedtrust_ops_app'), 'usage'), true)))
    execute function ops.audit_alert('resolve');

-- A rotation writes in pages and is one event. Without the name of a rotation, each statement is one; the name of an
-- old rotation hides nothing.
create function ops.audit_key_rotation() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        select from ops.audit_events
        where action = 'key rotation' and actor = session_user and at > now() - interval '1 hour'
          and detail ->> 'rotation' = current_setting('seedtrust.key_rotation', true)
    ) then
        perform ops.record_audit_event('key rotation', 'account numbers');
    end if;
    return null;
end $$;
create trigger seedtrust_ops_audit_key_rotation after update of account_number_encrypted
    on public.huntington_transactions for each statement when (
        current_setting('seedtrust.key_rotation', true) <> ''
        or (pg_has_role(current_user, to_regrole('seedtrust_ops_keys'), 'usage')
            and not pg_has_role(current_user, 'pg_database_owner', 'usage')))
    execute function ops.audit_key_rotation();
"""

# Rows instead of advisory locks, which any login can hold. They are locked and never changed.
LOCKS = """
create table ops.locks (name text primary key);
insert into ops.locks (name) values ('approvals'), ('balance_reminders'), ('balance_snapshot');
create trigger append_only before update or delete on ops.locks
    for each row execute function ops.refuse_change();
create trigger never_emptied before truncate on ops.locks
    for each statement execute function ops.refuse_change();
"""


def upgrade() -> None:
    op.execute(LOCKS)
    for functions in (REFUSE, LEDGER, REQUESTS, ATTEMPTS, ALERTS):
        op.execute(functions)
    for name, event, table, condition, function in GUARDS:
        op.execute(
            GUARD.format(
                name=name,
                event=event,
                table=table,
                condition=condition,
                acts_as_jobs=ACTS_AS_JOBS,
                function=function,
            )
        )
    op.execute(AUDIT)


def downgrade() -> None:
    op.execute("drop trigger seedtrust_ops_audit_key_rotation on public.huntington_transactions")
    op.execute("drop trigger audit_resolution on ops.alerts")
    op.execute("drop trigger audit_acknowledgement on ops.alerts")
    op.execute("drop trigger audit on ops.switches")
    for name, _, table, _, _ in GUARDS:
        op.execute(f"drop trigger {name} on {table}")
    op.execute(
        """
        drop function ops.audit_key_rotation(), ops.audit_alert(), ops.audit_switch(),
            ops.record_audit_event(text, text, text), ops.guard_alert(), ops.guard_attempt(),
            ops.guard_request_status(), ops.post_ledger_entries(text, bigint[], bigint[], text[]), ops.refuse_to_jobs();
        drop table ops.audit_events, ops.locks;
        """
    )
