"""Adds `ops.funding_checks`, and the lock under which one batch at a time is checked against its funding account.

Revision ID: 0022
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        create table ops.funding_checks (
            batch_id            bigint primary key,
            funding_account_id  text not null,
            lease_token         text not null,
            outcome             text not null check (outcome in ('covered', 'short', 'unreadable', 'refused')),
            needed_cents        bigint not null,
            reserved_cents      bigint not null,
            available_cents     bigint,
            detail              text,
            checked_at          timestamptz not null default clock_timestamp(),
            not_before          timestamptz,
            check ((outcome = 'covered') = (not_before is null))
        );
        insert into ops.locks (name) values ('funding');
        """
    )


def downgrade() -> None:
    op.execute(
        """
        alter table ops.locks disable trigger append_only;
        delete from ops.locks where name = 'funding';
        alter table ops.locks enable trigger append_only;
        drop table ops.funding_checks;
        """
    )
