-- The roles of this project's processes and people in the application database, each with the privileges it needs and
-- no others. Run it as a superuser (or your provider's equivalent) in that database:
--
--     psql --single-transaction --set ON_ERROR_STOP=1 --file deploy/database_roles.sql "$ADMIN_DATABASE_URL"
--
-- Run it after the first `seedtrust-ops migrate`, which the owner of the platform's tables runs, and again after every
-- migration. It can be repeated, and revokes whatever it does not name. Set passwords separately
-- (`\password seedtrust_ops_app`). docs/security.md says which process has which role.

-- Roles belong to the whole server, so another database may have created them already.
do $$
declare
    wanted text;
begin
    foreach wanted in array array[
        'seedtrust_ops_app', 'seedtrust_ops_operator', 'seedtrust_ops_migrate', 'seedtrust_ops_keys',
        'seedtrust_ops_read', 'seedtrust_ops_dagster'
    ] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole noreplication', wanted);
        end if;
    end loop;
end $$;

-- Start clean: revoke whatever an older version of this file, or a person, has granted.
do $$
declare
    role_name text;
    membership record;
begin
    foreach role_name in array array[
        'seedtrust_ops_app', 'seedtrust_ops_operator', 'seedtrust_ops_keys', 'seedtrust_ops_read'
    ] loop
        execute format('revoke all on all tables in schema public, ops from %I', role_name);
        execute format('revoke all on all sequences in schema public, ops from %I', role_name);
        execute format('revoke all on all functions in schema public, ops from %I', role_name);
        execute format('revoke all on schema public, ops from %I', role_name);
        execute format('revoke all on database %I from %I', current_database(), role_name);
        for membership in
            select distinct roleid::regrole as granted from pg_auth_members where member = role_name::regrole
        loop
            execute format('revoke %s from %I', membership.granted, role_name);
        end loop;
    end loop;
end $$;
-- Revoking a table also revokes grants on its columns. Privileges of PUBLIC in ops:
revoke all on schema ops from public;
revoke all on all tables in schema ops from public;
revoke all on all functions in schema ops from public;

------------------------------------------------------------------------------------------------------------------------
-- Who may connect: our roles, and every role that owns something in this database or has a privilege on it. PostgreSQL lets every
-- login of the server in, and a login without privileges could still exhaust connections and hold advisory locks. A
-- notice names each role of the platform that keeps its access. A login that has its privileges only by `set role`, or
-- none yet, needs `grant connect on database ... to ...`.
do $$
declare
    platform_role record;
begin
    execute format('revoke connect, temporary on database %I from public', current_database());
    execute format(
        'grant connect on database %I to seedtrust_ops_app, seedtrust_ops_operator, seedtrust_ops_migrate, '
        'seedtrust_ops_keys, seedtrust_ops_read', current_database());
    for platform_role in
        with of_the_platform as (
            select oid from pg_namespace where nspname <> 'information_schema' and nspname not like 'pg\_%'
        ), privileges as (
            select relowner as owner, relacl as acl from pg_class where relnamespace in (table of_the_platform)
            union all select proowner, proacl from pg_proc where pronamespace in (table of_the_platform)
            union all select nspowner, nspacl from pg_namespace where oid in (table of_the_platform)
            union all select null, attacl from pg_attribute join pg_class on pg_class.oid = attrelid
                where relnamespace in (table of_the_platform)
            union all select datdba, null from pg_database where datname = current_database()
        )
        select rolname as name from pg_roles
        -- PostgreSQL's own roles have lower numbers.
        where oid >= 16384 and not rolsuper and rolname not like 'seedtrust\_ops\_%' and oid in (
            select owner from privileges where owner is not null
            union select grantee from privileges, aclexplode(acl))
        order by rolname
    loop
        raise notice '% keeps its access to this database', platform_role.name;
        execute format('grant connect, temporary on database %I to %I', current_database(), platform_role.name);
    end loop;
end $$;
-- The default since PostgreSQL 15; a database that was upgraded from an older version still has it. The platform's
-- owner, which may create tables, is granted that below.
revoke create on schema public from public;

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_migrate: only `seedtrust-ops migrate`, no long-running process.
--
-- It owns schema ops. Our migrations also create triggers and indexes on platform tables, and PostgreSQL lets only a
-- table's owner create an index, so it is a member of the platform's owning role. It needs the membership only while it
-- migrates; if that is too much, let the platform's owner migrate, and revoke the membership.
do $$
declare
    relation record;
    platform_owner record;
begin
    execute format('grant create on database %I to seedtrust_ops_migrate', current_database());
    alter schema ops owner to seedtrust_ops_migrate;
    for relation in
        select oid::regclass as name from pg_class
        where relnamespace = 'ops'::regnamespace and relkind in ('r', 'p', 'v', 'm')
    loop
        execute format('alter table %s owner to seedtrust_ops_migrate', relation.name);
    end loop;
    for relation in
        select oid::regprocedure as name from pg_proc where pronamespace = 'ops'::regnamespace
    loop
        execute format('alter routine %s owner to seedtrust_ops_migrate', relation.name);
    end loop;
    for platform_owner in
        select distinct rolname as name, rolsuper as is_superuser
        from pg_class join pg_roles on pg_roles.oid = relowner
        where relnamespace = 'public'::regnamespace and relname in ('huntington_batches', 'ledger_entries')
    loop
        if platform_owner.is_superuser then
            raise warning 'the platform''s tables belong to superuser %: give them an owner of their own; until then '
                'only that superuser can migrate', platform_owner.name;
        else
            execute format('grant create on schema public to %I', platform_owner.name);
            execute format('grant %I to seedtrust_ops_migrate', platform_owner.name);
        end if;
    end loop;
end $$;
-- It owns ops.post_ledger_entries, which runs with these privileges of its owner, also without that membership.
grant usage on schema public to seedtrust_ops_migrate;
grant select on
    public.accounts, public.disbursement_requests, public.huntington_transactions, public.ledger_entries
    to seedtrust_ops_migrate;
grant insert on public.ledger_entries to seedtrust_ops_migrate;
grant update (balance_cents) on public.accounts to seedtrust_ops_migrate;
-- And ops.draft_payments.
grant select on public.huntington_batches to seedtrust_ops_migrate;
grant insert on public.huntington_batches, public.huntington_transactions to seedtrust_ops_migrate;

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_app: the worker, all jobs, sensors and schedules, and the watchdog.
--
-- Triggers refuse what it could otherwise do with these privileges, such as approving a request in a person's name
-- (revision 0011 of schema ops; docs/decisions/database-guards.md).

grant usage on schema public, ops to seedtrust_ops_app;

-- The platform's tables: read what jobs are about, and change the columns that jobs decide.
grant select on
    public.users, public.cases, public.case_parties, public.accounts, public.disbursement_requests,
    public.approval_rules, public.huntington_batches, public.huntington_transactions, public.ledger_entries,
    public.report_requests, public.job_runs, public.errors
    to seedtrust_ops_app;
grant update (is_on_site) on public.users to seedtrust_ops_app;
-- Accounts are locked before a batch is sent, and locking a row requires the privilege to update one of its columns. A
-- trigger refuses the update; ops.post_ledger_entries adds to the ledger and moves the balance with it.
grant update (balance_cents) on public.accounts to seedtrust_ops_app;
grant execute on function ops.post_ledger_entries, ops.post_ledger_correction, ops.draft_payments to seedtrust_ops_app;
grant update (status, approved_at, approved_by, paid_at) on public.disbursement_requests to seedtrust_ops_app;
-- Rules are locked while they approve, and locking a row requires the privilege to update one of its columns. The name
-- of a rule affects nothing.
grant update (name) on public.approval_rules to seedtrust_ops_app;
grant update (status, queued_at, started_at, finished_at, error) on public.huntington_batches to seedtrust_ops_app;
grant update (status, failure_reason, bank_transfer_id, completed_at, updated_at)
    on public.huntington_transactions to seedtrust_ops_app;
grant update (status, started_at, finished_at, error) on public.report_requests to seedtrust_ops_app;
grant select, delete on public.viewing_drs, public.viewing_payments to seedtrust_ops_app;
grant insert, update on public.job_runs to seedtrust_ops_app;
grant insert on public.errors to seedtrust_ops_app;

-- Our own tables: none can be emptied, altered or dropped, and the records of attempts and of who was notified of
-- which alert are append-only.
grant select on all tables in schema ops to seedtrust_ops_app;
grant insert on ops.transfer_attempts, ops.alert_notifications to seedtrust_ops_app;
grant insert, update on
    ops.batch_leases, ops.bank_feed_cursors, ops.balance_alerts, ops.shadow_decisions, ops.transfer_evidence,
    ops.statuses_before_payment, ops.funding_checks, ops.legacy_inquiries
    to seedtrust_ops_app;
-- What names an unreadable transfer stays as the bank reported it.
grant insert, update (
    idempotency_key, reference, problem, first_seen_at, last_seen_at, next_inquiry_at, attempts, resolved_at
) on ops.unreadable_transfers to seedtrust_ops_app;
-- What was written to whom stays as it was queued; an email gets its subject when it is sent.
grant insert, update (
    status, attempts, sent_at, next_attempt_at, attempted_at, claim_token, last_error, subject
) on ops.notifications to seedtrust_ops_app;
grant insert, delete, update (
    status, attempts, sent_at, next_attempt_at, attempted_at, claim_token, last_error
) on ops.outgoing_events to seedtrust_ops_app;
-- What the bank reports and no transaction explains; only a person explains it otherwise, and books it.
grant insert (
    bank_transfer_id, idempotency_key, reference, status, method, amount_cents, created_at, updated_at, problem
), update (idempotency_key, status, method, amount_cents, created_at, updated_at, problem, transaction_id, explained_at)
    on ops.unknown_transfers to seedtrust_ops_app;
-- Only a person acknowledges alerts.
grant insert (rule, subject, severity, opened_at, detail, last_found_at),
    update (severity, resolved_at, detail, last_found_at, occurrences)
    on ops.alerts to seedtrust_ops_app;
grant insert, update, delete on ops.report_claims to seedtrust_ops_app;
grant insert, delete on ops.notification_attachments to seedtrust_ops_app;
-- For locking the rows; a trigger refuses the update.
grant update (name) on ops.locks to seedtrust_ops_app;
-- A trigger records failures; the jobs only record that people were notified of them.
grant update (notified_at) on ops.transfer_failures to seedtrust_ops_app;

-- A job that hangs must not block others. The engine sets the last two itself; here they apply to every client.
alter role seedtrust_ops_app set statement_timeout = '10min'; -- not shorter than a report may take
alter role seedtrust_ops_app set lock_timeout = '20s';
alter role seedtrust_ops_app set idle_in_transaction_session_timeout = '10s';

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_operator: people who intervene with `seedtrust-ops transfers`, `alerts ack`, `alerts resolve` and
-- `notifications retry`. It reads what seedtrust_ops_read reads. Give each person a login of their own, whose name is then
-- the actor in ops.audit_events: create role ana login in role seedtrust_ops_operator;

grant seedtrust_ops_read to seedtrust_ops_operator;
grant insert, delete on ops.switches to seedtrust_ops_operator;
grant update (acknowledged_at, acknowledged_until, acknowledged_severity, acknowledged_by, resolved_at, detail)
    on ops.alerts to seedtrust_ops_operator;
grant update (status, attempts, next_attempt_at, claim_token) on ops.notifications to seedtrust_ops_operator;
-- `transfers settle`: the books change only through the two functions.
grant update (status, failure_reason, completed_at, updated_at)
    on public.huntington_transactions to seedtrust_ops_operator;
grant update (status, paid_at) on public.disbursement_requests to seedtrust_ops_operator;
-- `transfers release` queues a held batch again; a trigger refuses any other but what `transfers settle` finishes.
grant update (status, queued_at, finished_at, error) on public.huntington_batches to seedtrust_ops_operator;
grant execute on function ops.post_ledger_entries, ops.post_ledger_correction to seedtrust_ops_operator;
grant insert on ops.transfer_attempts, ops.notifications, ops.alerts to seedtrust_ops_operator;
grant insert, update on ops.statuses_before_payment to seedtrust_ops_operator;
grant update (state, bank_amount_cents, settled_as, settled_seen_at, missing_since, unknown_to_bank_at, changed_at)
    on ops.transfer_evidence to seedtrust_ops_operator;
grant update (severity, detail, occurrences) on ops.alerts to seedtrust_ops_operator;
-- `transfers explain`: what it books follows from what the bank said.
grant update (
    status, updated_at, transaction_id, explained_at, explained_by, explanation, disbursement_request_id, account_id
) on ops.unknown_transfers to seedtrust_ops_operator;
grant execute on function ops.post_explained_transfer to seedtrust_ops_operator;
alter role seedtrust_ops_operator set lock_timeout = '20s';
alter role seedtrust_ops_operator set idle_in_transaction_session_timeout = '10s';

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_keys: `seedtrust-ops keys`, for the person who rotates the keys of account numbers.

grant usage on schema public, ops to seedtrust_ops_keys;
grant select (id, account_number_encrypted), update (account_number_encrypted)
    on public.huntington_transactions to seedtrust_ops_keys;
grant select (transaction_id, account_number_encrypted), update (account_number_encrypted)
    on ops.transfer_evidence to seedtrust_ops_keys;
grant select (email, is_active) on public.users to seedtrust_ops_keys; -- for `--as`
grant select on ops.alembic_version to seedtrust_ops_keys;
alter role seedtrust_ops_keys set lock_timeout = '20s';
alter role seedtrust_ops_keys set idle_in_transaction_session_timeout = '10s';

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_read: people who read, and dashboards. No account number, encrypted or not, and no email attachment.

grant usage on schema public, ops to seedtrust_ops_read;
grant select on
    public.users, public.cases, public.case_parties, public.accounts, public.disbursement_requests,
    public.approval_rules, public.huntington_batches, public.ledger_entries, public.report_requests, public.viewing_drs,
    public.viewing_payments, public.job_runs, public.errors
    to seedtrust_ops_read;
grant select (
    id, batch_id, disbursement_request_id, method, amount_cents, payee_name, account_number_last4, account_type, status,
    failure_reason, bank_transfer_id, completed_at, updated_at
) on public.huntington_transactions to seedtrust_ops_read;
grant select on all tables in schema ops to seedtrust_ops_read;
revoke select on ops.notification_attachments, ops.transfer_evidence from seedtrust_ops_read;
grant select (
    transaction_id, state, disbursement_request_id, account_id, method, amount_cents, payee_name, account_number_last4,
    account_type, bank_transfer_id, bank_status, bank_updated_at, bank_created_at, bank_amount_cents,
    unknown_to_bank_at, missing_since, settled_as, settled_seen_at, changed_at, payee_name_normalized
) on ops.transfer_evidence to seedtrust_ops_read;
grant select (notification_id, filename, media_type) on ops.notification_attachments to seedtrust_ops_read;
alter role seedtrust_ops_read set default_transaction_read_only = on;
alter role seedtrust_ops_read set statement_timeout = '60s';
alter role seedtrust_ops_read set lock_timeout = '2s';
alter role seedtrust_ops_read set idle_in_transaction_session_timeout = '60s';

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_migrate waits only briefly for a lock: everything that queues behind a waiting `alter table` waits too.
alter role seedtrust_ops_migrate set lock_timeout = '5s';

------------------------------------------------------------------------------------------------------------------------
-- seedtrust_ops_dagster: the user in DAGSTER_POSTGRES_URL. It has a database of its own, in which Dagster creates its
-- tables, and no privileges in this one. Once, outside a transaction:
--
--     create database dagster owner seedtrust_ops_dagster;
--     revoke all on database dagster from public;
alter role seedtrust_ops_dagster set statement_timeout = '10min';
