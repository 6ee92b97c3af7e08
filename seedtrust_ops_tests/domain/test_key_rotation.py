"""Key rotation: every account number moves unchanged to the newest key, even with concurrent changes."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select, text, update

from seedtrust_ops.domain import key_rotation
from seedtrust_ops.domain.key_rotation import KeyUsage, count_key_usage, rotate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.key_rotation_helpers import (
    cipher_with_keys,
    create_batch_with_key,
    new_key,
    read_numbers,
    read_tokens,
)
from seedtrust_ops_tests.support.waiters import wait_until

OLD, NEW, LOST = new_key(), new_key(), new_key()


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotation, "PAGE_SIZE", 7)


def test_rotation_moves_every_number_unchanged_to_the_newest_key(company: Company) -> None:
    for key, count in ((OLD, 15), (NEW, 5), (OLD, 8)):
        create_batch_with_key(company, key, count)
    before = read_numbers(company.sessions, NEW, OLD)

    rotation = rotate(company.sessions, cipher_with_keys(NEW, OLD))

    assert rotation.reencrypted == 23
    assert rotation.is_complete
    assert read_numbers(company.sessions, NEW) == before
    assert rotate(company.sessions, cipher_with_keys(NEW, OLD)).reencrypted == 0


def test_rotation_changes_only_the_token(company: Company) -> None:
    """Above all not `updated_at`, from which auto-heal computes how long a transaction has been unchanged."""
    create_batch_with_key(company, OLD, 5, status="processing")
    kept = [column for column in HuntingtonTransaction.__table__.columns if column.name != "account_number_encrypted"]
    query = select(*kept).order_by(HuntingtonTransaction.id)
    with company.sessions() as session:
        before = session.execute(query).all()
    assert rotate(company.sessions, cipher_with_keys(NEW, OLD)).reencrypted == 5
    with company.sessions() as session:
        assert session.execute(query).all() == before


def test_key_usage_count_lists_all_keys_and_unreadable_tokens(company: Company) -> None:
    create_batch_with_key(company, NEW, 3)
    create_batch_with_key(company, OLD, 4)
    lost = create_batch_with_key(company, LOST, 2)
    damaged = create_batch_with_key(company, NEW, 9, account_number_encrypted="4000000001")
    before = read_tokens(company.sessions)
    usage = count_key_usage(company.sessions, cipher_with_keys(NEW, OLD))
    assert usage == KeyUsage(Counter({0: 3, 1: 4}), lost, damaged)
    assert read_tokens(company.sessions) == before


def test_rotation_with_unreadable_tokens_is_incomplete(company: Company) -> None:
    lost = create_batch_with_key(company, LOST, 2)
    create_batch_with_key(company, OLD, 2)
    before = read_tokens(company.sessions)
    rotation = rotate(company.sessions, cipher_with_keys(NEW, OLD))
    after = read_tokens(company.sessions)
    assert not rotation.is_complete
    assert rotation.usage.unknown_key_transactions == lost
    assert {transaction_id: after[transaction_id] for transaction_id in lost} == {
        transaction_id: before[transaction_id] for transaction_id in lost
    }
    assert rotation.usage.older_key_count == 0


@dataclass
class ConcurrentlyChangingCipher:
    """A cipher that changes a transaction before it re-encrypts, once for each id in `transaction_ids`."""

    cipher: FernetFieldCipher
    company: Company
    changing_cipher: FernetFieldCipher
    transaction_ids: list[int]
    numbers: list[str] = field(default_factory=list)

    def key_index(self, token: str) -> int:
        return self.cipher.key_index(token)

    def reencrypt(self, token: str) -> str:
        if self.transaction_ids:
            self.numbers.append(f"{len(self.transaction_ids)}000111")
            with self.company.sessions.begin() as session:
                session.execute(
                    update(HuntingtonTransaction)
                    .where(HuntingtonTransaction.id == self.transaction_ids.pop())
                    .values(account_number_encrypted=self.changing_cipher.encrypt(self.numbers[-1]))
                )
        return self.cipher.reencrypt(token)


def test_number_corrected_during_a_rotation_is_kept(company: Company) -> None:
    first, *_ = create_batch_with_key(company, OLD, 5)
    cipher = ConcurrentlyChangingCipher(cipher_with_keys(NEW, OLD), company, cipher_with_keys(OLD), [first])
    rotation = rotate(company.sessions, cipher)
    assert rotation.is_complete
    assert cipher_with_keys(NEW).decrypt(read_tokens(company.sessions)[first]) == cipher.numbers[0]


def test_rotation_is_incomplete_while_an_application_uses_the_old_key(company: Company) -> None:
    first, *_ = create_batch_with_key(company, OLD, 3)
    cipher = ConcurrentlyChangingCipher(cipher_with_keys(NEW, OLD), company, cipher_with_keys(OLD), [first] * 50)
    rotation = rotate(company.sessions, cipher)
    assert not rotation.is_complete
    assert rotation.usage.older_key_count > 0


def test_row_locked_by_a_worker_is_rotated_last_and_blocks_no_other(company: Company) -> None:
    locked, *others = create_batch_with_key(company, OLD, 20)
    with ThreadPoolExecutor(1) as pool:
        with company.sessions.begin() as locking:
            # On a busy machine the server must not end this session as idle.
            locking.execute(text("set local idle_in_transaction_session_timeout = 0"))
            locking.execute(
                select(HuntingtonTransaction.id).where(HuntingtonTransaction.id == locked).with_for_update()
            )
            rotating = pool.submit(rotate, company.sessions, cipher_with_keys(NEW, OLD))
            wait_until(lambda: count_key_usage(company.sessions, cipher_with_keys(NEW)).tokens[0] == len(others))
            assert not rotating.done()
        assert rotating.result().is_complete


def test_concurrent_rotations_are_safe(company: Company) -> None:
    create_batch_with_key(company, OLD, 40)
    before = read_numbers(company.sessions, OLD)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(rotate, company.sessions, cipher_with_keys(NEW, OLD)) for _ in range(2)]
        assert sum(rotation.result().reencrypted for rotation in both) == 40
    assert read_numbers(company.sessions, NEW) == before
