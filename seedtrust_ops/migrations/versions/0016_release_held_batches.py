"""Lets operators queue held batches again, and audits it.

Revision ID: 0016
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

ACTS_AS_OPERATOR = """(pg_has_role(current_user, to_regrole('seedtrust_ops_operator'), 'usage')
    and not pg_has_role(current_user, 'pg_database_owner', 'usage'))"""
IS_RELEASED = "(old.status = 'held' and new.status = 'queued')"

GUARD = """
drop trigger seedtrust_ops_guard_operator on public.huntington_batches;
create trigger seedtrust_ops_guard_operator after update on public.huntington_batches
    for each row when ({condition}) execute function ops.guard_operator();
"""

# The platform's applications queue held batches too, and that is theirs to record.
AUDIT = f"""
create function ops.audit_release() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform ops.record_audit_event('release', format('batch %s', new.id));
    return null;
end $$;
create trigger seedtrust_ops_audit_release after update of status on public.huntington_batches
    for each row when (
        {IS_RELEASED} and (current_setting('seedtrust.os_user', true) <> '' or {ACTS_AS_OPERATOR}))
    execute function ops.audit_release();
"""


def upgrade() -> None:
    op.execute(GUARD.format(condition=f"{ACTS_AS_OPERATOR} and not {IS_RELEASED}"))
    op.execute(AUDIT)


def downgrade() -> None:
    op.execute("drop trigger seedtrust_ops_audit_release on public.huntington_batches")
    op.execute("drop function ops.audit_release()")
    op.execute(GUARD.format(condition=ACTS_AS_OPERATOR))
