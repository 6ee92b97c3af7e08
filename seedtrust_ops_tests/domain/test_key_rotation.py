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
from seedtrust_ops_tests.support.rotated_keys import batch_under, new_key, ring_of, tokens_of
from seedtrust_ops_tests.support.waiters import wait_until

OLD, NEW, LOST = new_key(), new_key(), new_key()


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotation, "PAGE_SIZE", 7)


def test_rotation_moves_every_number_unchanged_to_the_newest_key(company: Company) -> None:
    for key, count in ((OLD, 15), (NEW, 5), (OLD, 8)):
        batch_under(company, key, count)
    before = {one: ring_of(NEW, OLD).decrypt(token) for one, token in tokens_of(company.sessions).items()}

    rotation = rotate(company.sessions, ring_of(NEW, OLD))

    assert rotation.reencrypted == 23
    assert rotation.is_complete
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == before
    assert rotate(company.sessions, ring_of(NEW, OLD)).reencrypted == 0


def test_rotation_changes_only_the_token(company: Company) -> None:
    """Above all not `updated_at`, from which auto-heal tells how long a transaction has been unchanged."""
    batch_under(company, OLD, 5, status="processing")
    kept = [column for column in HuntingtonTransaction.__table__.columns if column.name != "account_number_encrypted"]
    query = select(*kept).order_by(HuntingtonTransaction.id)
    with company.sessions() as session:
        before = session.execute(query).all()
    assert rotate(company.sessions, ring_of(NEW, OLD)).reencrypted == 5
    with company.sessions() as session:
        assert session.execute(query).all() == before


def test_key_usage_count_lists_all_keys_and_unreadable_tokens(company: Company) -> None:
    batch_under(company, NEW, 3)
    batch_under(company, OLD, 4)
    lost = batch_under(company, LOST, 2)
    damaged = batch_under(company, NEW, 9, account_number_encrypted="4000000001")
    before = tokens_of(company.sessions)
    use = count_key_usage(company.sessions, ring_of(NEW, OLD))
    assert use == KeyUsage(Counter({0: 3, 1: 4}), lost, damaged)
    assert tokens_of(company.sessions) == before


def test_rotation_with_unreadable_tokens_is_incomplete(company: Company) -> None:
    lost = batch_under(company, LOST, 2)
    batch_under(company, OLD, 2)
    before = tokens_of(company.sessions)
    rotation = rotate(company.sessions, ring_of(NEW, OLD))
    after = tokens_of(company.sessions)
    assert not rotation.is_complete
    assert rotation.usage.unknown_key_transactions == lost
    assert {one: after[one] for one in lost} == {one: before[one] for one in lost}
    assert rotation.usage.older_key_count == 0


@dataclass
class ConcurrentlyChangingRing:
    """A key ring that changes a transaction in between, once for each transaction id in `turns`."""

    ring: FernetFieldCipher
    company: Company
    cipher_of_changes: FernetFieldCipher
    turns: list[int]
    numbers: list[str] = field(default_factory=list)

    def key_index(self, token: str) -> int:
        return self.ring.key_index(token)

    def reencrypt(self, token: str) -> str:
        if self.turns:
            self.numbers.append(f"{len(self.turns)}000111")
            with self.company.sessions.begin() as session:
                session.execute(
                    update(HuntingtonTransaction)
                    .where(HuntingtonTransaction.id == self.turns.pop())
                    .values(account_number_encrypted=self.cipher_of_changes.encrypt(self.numbers[-1]))
                )
        return self.ring.reencrypt(token)


def test_number_corrected_during_a_rotation_is_kept(company: Company) -> None:
    first, *_ = batch_under(company, OLD, 5)
    ring = ConcurrentlyChangingRing(ring_of(NEW, OLD), company, ring_of(OLD), [first])
    rotation = rotate(company.sessions, ring)
    assert rotation.is_complete
    assert ring_of(NEW).decrypt(tokens_of(company.sessions)[first]) == ring.numbers[0]


def test_rotation_is_incomplete_while_an_application_uses_the_old_key(company: Company) -> None:
    first, *_ = batch_under(company, OLD, 3)
    ring = ConcurrentlyChangingRing(ring_of(NEW, OLD), company, ring_of(OLD), [first] * 50)
    rotation = rotate(company.sessions, ring)
    assert not rotation.is_complete
    assert rotation.usage.older_key_count > 0


def test_row_locked_by_a_worker_is_rotated_last_and_blocks_no_other(company: Company) -> None:
    locked, *others = batch_under(company, OLD, 20)
    with ThreadPoolExecutor(1) as pool:
        with company.sessions.begin() as locking:
            # On a busy machine the server must not end this session as idle.
            locking.execute(text("set local idle_in_transaction_session_timeout = 0"))
            locking.execute(
                select(HuntingtonTransaction.id).where(HuntingtonTransaction.id == locked).with_for_update()
            )
            rotating = pool.submit(rotate, company.sessions, ring_of(NEW, OLD))
            wait_until(lambda: count_key_usage(company.sessions, ring_of(NEW)).tokens[0] == len(others))
            assert not rotating.done()
        assert rotating.result().is_complete


def test_concurrent_rotations_are_safe(company: Company) -> None:
    batch_under(company, OLD, 40)
    before = {one: ring_of(OLD).decrypt(token) for one, token in tokens_of(company.sessions).items()}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(rotate, company.sessions, ring_of(NEW, OLD)) for _ in range(2)]
        assert sum(one.result().reencrypted for one in both) == 40
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == before
