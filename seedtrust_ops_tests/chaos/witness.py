"""A witness in the database: triggers that note what was true when an attempt was recorded or an email was queued.

Rows change afterwards (people edit, move and delete them, users leave), so the judgments need what they were then. The
product neither reads nor writes the witness's tables.
"""

from sqlalchemy import Engine, text

WITNESS = """
    create schema witness;
    create table witness.orders (
        transaction_id bigint not null, attempt bigint not null, request_id bigint, account_id bigint,
        amount_cents bigint not null, approved_cents bigint, batch_id bigint not null,
        batch_status text not null, is_leased boolean not null
    );
    create function witness.note_order() returns trigger language plpgsql as $$
    begin
        insert into witness.orders
        select t.id, new.attempt, t.disbursement_request_id, a.id, t.amount_cents, r.amount_cents, t.batch_id, b.status,
               coalesce(l.token is not null and l.expires_at > clock_timestamp(), false)
          from public.huntington_transactions t
          join public.huntington_batches b on b.id = t.batch_id
          left join ops.batch_leases l on l.batch_id = t.batch_id
          left join public.disbursement_requests r on r.id = t.disbursement_request_id
          left join public.accounts a on a.case_id = r.case_id
         where t.id = new.transaction_id;
        return null;
    end $$;
    create trigger witness after insert on ops.transfer_attempts
        for each row when (new.outcome = 'started') execute function witness.note_order();
    create table witness.emails (notification_id bigint primary key, is_to_active_user boolean not null);
    create function witness.note_email() returns trigger language plpgsql as $$
    begin
        insert into witness.emails
        select new.id, coalesce((select is_active from public.users where id = new.recipient_id), false);
        return null;
    end $$;
    create trigger witness after insert on ops.notifications
        for each row execute function witness.note_email();
"""


def install_witness(engine: Engine) -> None:
    """Install the witness in a database with SeedTrust's tables."""
    with engine.begin() as connection:
        connection.execute(text(WITNESS))
