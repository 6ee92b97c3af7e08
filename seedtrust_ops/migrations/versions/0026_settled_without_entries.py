"""Lets a newer answer of the bank correct what was booked before a settlement that booked nothing itself.

Revision ID: 0026
"""

import importlib

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# As in 0017, but for settlements that had nothing to correct, such as of a returned transfer as failed.
CORRECTION = """
create or replace function ops.post_ledger_correction(corrected bigint, cents bigint, memo text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    sent record;
    booked bigint;
    entry bigint;
begin
    select account_id, amount_cents, state, settled_as into sent
        from ops.transfer_evidence where transaction_id = corrected for update;
    select coalesce(sum(amount_cents), 0) into booked from public.ledger_entries
        where huntington_transaction_id = corrected or id in (
            select ledger_entry_id from ops.ledger_corrections where transaction_id = corrected);
    if sent.account_id is null
       or (sent.settled_as is null
           and not exists (select from ops.ledger_corrections where transaction_id = corrected)
           and not exists (
               select from ops.transfer_attempts where transaction_id = corrected and outcome = 'settled'))
       or booked + cents > 0
       or (booked + cents <> 0 and (sent.state <> 'moved' or (
           booked + cents <> -sent.amount_cents and not exists (
               select from ops.alerts where rule = 'amount_differs' and subject = 'transaction ' || corrected))))
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
"""


def upgrade() -> None:
    op.execute(CORRECTION)


def downgrade() -> None:
    op.execute(importlib.import_module("seedtrust_ops.migrations.versions.0017_settlement_corrections").CORRECTION)
