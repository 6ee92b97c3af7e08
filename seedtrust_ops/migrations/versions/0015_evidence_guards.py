"""Guards the evidence of transfers, by which the ledger's function decides, and audits all that people change in it.

As in 0011 and 0013, the guards bind the jobs' role and operators and nobody else.

Revision ID: 0015
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

ACTS_AS_JOBS = """pg_has_role(current_user, to_regrole('seedtrust_ops_app'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""
ACTS_AS_OPERATOR = """pg_has_role(current_user, to_regrole('seedtrust_ops_operator'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage')"""

# ORDER_COLUMNS in domain/transfers/evidence.py, of the row that stands before the dot.
ORDER = """({0}.disbursement_request_id, {0}.account_id, {0}.method, {0}.amount_cents, {0}.payee_name,
    {0}.routing_number, {0}.account_number_encrypted, {0}.account_number_last4, {0}.account_type)"""

EVIDENCE = f"""
create function ops.guard_evidence() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    is_new_order boolean := tg_op = 'INSERT';
    is_allowed boolean := true;
begin
    if tg_op = 'UPDATE' then
        is_new_order := {ORDER.format("old")} is distinct from {ORDER.format("new")};
        is_allowed := (old.state = 'not_moved' or not is_new_order)
            -- The bank has contradicted itself, so a person decides.
            and (old.state <> 'contradicted' or new.state = 'contradicted');
    end if;
    if is_new_order then
        -- The jobs' role can change none of these in the transaction. Whoever calls has locked it.
        is_allowed := is_allowed and exists (
            select from public.huntington_transactions transaction
            left join public.disbursement_requests request on request.id = transaction.disbursement_request_id
            left join public.accounts account on account.case_id = request.case_id
            where transaction.id = new.transaction_id and {ORDER.format("new")} is not distinct from (
                transaction.disbursement_request_id, account.id, transaction.method, transaction.amount_cents,
                transaction.payee_name, transaction.routing_number, transaction.account_number_encrypted,
                transaction.account_number_last4, transaction.account_type));
    end if;
    if new.settled_as is not null and (tg_op = 'INSERT' or new.settled_as is distinct from old.settled_as)
        or new.settled_seen_at is not null
            and (tg_op = 'INSERT' or new.settled_seen_at is distinct from old.settled_seen_at)
    then
        is_allowed := false;
    end if;
    if new.unknown_to_bank_at is not null
        and (tg_op = 'INSERT' or new.unknown_to_bank_at is distinct from old.unknown_to_bank_at)
    then
        is_allowed := is_allowed and (
            new.unknown_to_bank_at between clock_timestamp() - interval '1 minute' and clock_timestamp()
            or exists (
                select from ops.transfer_attempts
                where transaction_id = new.transaction_id and outcome = 'unknown_to_bank'
                  and finished_at = new.unknown_to_bank_at));
    end if;
    if not is_allowed then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('the database role of the jobs records a transfer as its transaction says, what the bank '
                             'answers when it does, and settles nothing; transaction %s', new.transaction_id);
    end if;
    return null;
end $$;

create function ops.guard_status_before_payment() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        select from public.disbursement_requests
        where id = new.disbursement_request_id and status = new.status)
    then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('the database role of the jobs keeps the status that a request has; request %s is not %s',
                             new.disbursement_request_id, new.status);
    end if;
    return null;
end $$;

create function ops.guard_settlement() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if new.settled_as is null or new.changed_at not between now() and clock_timestamp() then
        raise exception using
            errcode = 'insufficient_privilege',
            message = format('an operator changes evidence only by settling a transfer; transaction %s',
                             new.transaction_id);
    end if;
    return null;
end $$;
"""  # noqa: S608  # The names are the constants above.
ORDER_CHANGES = f"""{ORDER.format("old")} is distinct from {ORDER.format("new")}
    or old.state = 'contradicted' or (old.settled_as, old.settled_seen_at, old.unknown_to_bank_at)
        is distinct from (new.settled_as, new.settled_seen_at, new.unknown_to_bank_at)"""
GUARDS = (
    ("guard_insert", "insert", "ops.transfer_evidence", "true", ACTS_AS_JOBS, "guard_evidence"),
    ("guard", "update", "ops.transfer_evidence", ORDER_CHANGES, ACTS_AS_JOBS, "guard_evidence"),
    ("guard_operator", "update", "ops.transfer_evidence", "true", ACTS_AS_OPERATOR, "guard_settlement"),
    (
        *("guard", "insert or update", "ops.statuses_before_payment"),
        *("true", ACTS_AS_JOBS, "guard_status_before_payment"),
    ),
)


def upgrade() -> None:
    op.execute(EVIDENCE)
    for name, event, table, condition, acts, function in GUARDS:
        op.execute(
            f"create constraint trigger {name} after {event} on {table} deferrable initially immediate "
            f"for each row when (({condition}) and {acts}) execute function ops.{function}()"
        )
    # In 0013 it said nothing of a person who changed the rest of a settled row.
    op.execute(
        f"""
        drop trigger audit on ops.transfer_evidence;
        create trigger audit after update on ops.transfer_evidence for each row when (
            new.settled_as is not null and (
                new.settled_as is distinct from old.settled_as
                or current_setting('seedtrust.os_user', true) <> '' or ({ACTS_AS_OPERATOR})))
            execute function ops.audit_settlement();
        create trigger audit_key_rotation after update of account_number_encrypted on ops.transfer_evidence
            for each statement when (
                current_setting('seedtrust.key_rotation', true) <> ''
                or (pg_has_role(current_user, to_regrole('seedtrust_ops_keys'), 'usage')
                    and not pg_has_role(current_user, 'pg_database_owner', 'usage')))
            execute function ops.audit_key_rotation();
        """
    )


def downgrade() -> None:
    op.execute(
        """
        drop trigger audit_key_rotation on ops.transfer_evidence;
        drop trigger audit on ops.transfer_evidence;
        create trigger audit after update of settled_as on ops.transfer_evidence
            for each row when (new.settled_as is not null) execute function ops.audit_settlement();
        """
    )
    for name, _, table, _, _, _ in GUARDS:
        op.execute(f"drop trigger {name} on {table}")
    op.execute("drop function ops.guard_evidence(), ops.guard_status_before_payment(), ops.guard_settlement()")
