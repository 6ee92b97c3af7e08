"""Helpers for tests of key rotation: account numbers encrypted with chosen keys, and a trigger that blocks a row."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops_tests.support.factories import Company

LOCK_ID = 7_305_777


def new_key() -> str:
    return Fernet.generate_key().decode()


def cipher_with_keys(*keys: str) -> FernetFieldCipher:
    return FernetFieldCipher([SecretStr(key) for key in keys])


def create_batch_with_key(company: Company, key: str, count: int, **columns: str) -> list[int]:
    """Create a batch whose account numbers are encrypted with `key`; return its transaction ids."""
    previous_cipher, company.cipher = company.cipher, cipher_with_keys(key)
    batch_id = company.big_batch(count)
    company.cipher = previous_cipher
    if columns:
        with company.sessions.begin() as session:
            for transaction in session.scalars(
                select(HuntingtonTransaction).where(HuntingtonTransaction.batch_id == batch_id)
            ):
                for name, value in columns.items():
                    setattr(transaction, name, value)
    return [row.id for row in company.transactions(batch_id)]


def read_tokens(sessions: sessionmaker[Session]) -> dict[int, str]:
    """Return every encrypted account number, by transaction id."""
    with sessions() as session:
        rows = session.execute(select(HuntingtonTransaction.id, HuntingtonTransaction.account_number_encrypted))
        return {row.id: row.account_number_encrypted for row in rows}


def read_numbers(sessions: sessionmaker[Session], *keys: str) -> dict[int, str]:
    """Return every account number, decrypted with these keys, by transaction id."""
    cipher = cipher_with_keys(*keys)
    return {transaction_id: cipher.decrypt(token) for transaction_id, token in read_tokens(sessions).items()}


@contextmanager
def block_updates(sessions: sessionmaker[Session], transaction_id: int) -> Iterator[Callable[[], bool]]:
    """Make every update of this transaction wait; yield a function that returns whether one is waiting."""
    with sessions.begin() as session:
        session.execute(
            text(
                "create or replace function wait_for_test_lock() returns trigger language plpgsql as"
                f" $$ begin perform pg_advisory_xact_lock({LOCK_ID}); return new; end $$"
            )
        )
        session.execute(
            text(
                "create trigger wait_for_test_lock before update on huntington_transactions for each row"
                f" when (old.id = {transaction_id}) execute function wait_for_test_lock()"
            )
        )

    def is_update_waiting() -> bool:
        with sessions() as session:
            return bool(
                session.scalar(text("select count(*) from pg_locks where locktype = 'advisory' and not granted"))
            )

    engine = sessions.kw["bind"]
    with engine.connect() as locker:
        locker.execute(text("select pg_advisory_lock(:id)"), {"id": LOCK_ID})
        # The session-level lock outlives its transaction, which must not stay idle.
        locker.commit()
        try:
            yield is_update_waiting
        finally:
            locker.execute(text("select pg_advisory_unlock(:id)"), {"id": LOCK_ID})
            locker.commit()
    with sessions.begin() as session:
        session.execute(text("drop trigger wait_for_test_lock on huntington_transactions"))
