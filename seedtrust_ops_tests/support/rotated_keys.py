"""Transactions whose account numbers are under several keys, and a door in the table at which a rotation waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops_tests.support.factories import Company

DOOR = 7_305_777


def new_key() -> str:
    return Fernet.generate_key().decode()


def ring_of(*keys: str) -> FernetFieldCipher:
    return FernetFieldCipher([SecretStr(key) for key in keys])


def batch_under(company: Company, key: str, count: int, **columns: str) -> list[int]:
    """The transactions of a new batch whose account numbers are under `key`."""
    others, company.cipher = company.cipher, ring_of(key)
    batch_id = company.big_batch(count)
    company.cipher = others
    if columns:
        with company.sessions.begin() as session:
            for transaction in session.scalars(
                select(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id)
            ):
                for name, value in columns.items():
                    setattr(transaction, name, value)
    return [one.id for one in company.transactions(batch_id)]


def tokens_of(sessions: sessionmaker[Session]) -> dict[int, str]:
    with sessions() as session:
        rows = session.execute(select(HuntingtonTransaction.id, HuntingtonTransaction.account_number_encrypted))
        return {row.id: row.account_number_encrypted for row in rows}


@contextmanager
def door_before(sessions: sessionmaker[Session], transaction_id: int) -> Iterator[Callable[[], bool]]:
    """While the block lasts, whoever changes this transaction waits; yields whether somebody does."""
    with sessions.begin() as session:
        session.execute(
            text(
                "create or replace function wait_at_the_door() returns trigger language plpgsql as"
                f" $$ begin perform pg_advisory_xact_lock({DOOR}); return new; end $$"
            )
        )
        session.execute(
            text(
                "create trigger the_door before update on huntington_transactions for each row"
                f" when (old.id = {transaction_id}) execute function wait_at_the_door()"
            )
        )

    def somebody_waits() -> bool:
        with sessions() as asking:
            return bool(
                asking.scalar(text("select count(*) from pg_locks where locktype = 'advisory' and not granted"))
            )

    engine = sessions.kw["bind"]
    with engine.connect() as shut:
        shut.execute(text("select pg_advisory_lock(:door)"), {"door": DOOR})
        # A session's lock outlives its transaction, and no transaction may idle.
        shut.commit()
        try:
            yield somebody_waits
        finally:
            shut.execute(text("select pg_advisory_unlock(:door)"), {"door": DOOR})
            shut.commit()
    with sessions.begin() as session:
        session.execute(text("drop trigger the_door on huntington_transactions"))
