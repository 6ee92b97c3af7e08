"""Key rotation: every account number ends under the newest key and says what it said, whoever works meanwhile."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from sqlalchemy import select, text, update

from seedtrust_ops.domain import key_rotation
from seedtrust_ops.domain.key_rotation import KeyUse, look_at_keys, rotate
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.rotated_keys import batch_under, new_key, ring_of, tokens_of
from seedtrust_ops_tests.support.waiters import wait_until

OLD, NEW, LOST = new_key(), new_key(), new_key()


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_rotation, "PAGE", 7)


def test_every_number_ends_under_the_newest_key_and_is_the_number_it_was(company: Company) -> None:
    for key, count in ((OLD, 15), (NEW, 5), (OLD, 8)):
        batch_under(company, key, count)
    before = {one: ring_of(NEW, OLD).decrypt(token) for one, token in tokens_of(company.sessions).items()}

    rotation = rotate(company.sessions, ring_of(NEW, OLD))

    assert rotation.renewed == 23
    assert rotation.complete
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == before
    assert rotate(company.sessions, ring_of(NEW, OLD)).renewed == 0


def test_nothing_but_the_token_changes(company: Company) -> None:
    """Least of all `updated_at`, in which healing reads since when a transaction has been quiet."""
    batch_under(company, OLD, 5, status="processing")
    kept = [column for column in HuntingtonTransaction.__table__.columns if column.name != "account_number_encrypted"]
    query = select(*kept).order_by(HuntingtonTransaction.id)
    with company.sessions() as session:
        before = session.execute(query).all()
    assert rotate(company.sessions, ring_of(NEW, OLD)).renewed == 5
    with company.sessions() as session:
        assert session.execute(query).all() == before


def test_looking_changes_nothing_and_tells_every_key_and_every_token_that_none_opens(company: Company) -> None:
    batch_under(company, NEW, 3)
    batch_under(company, OLD, 4)
    lost = batch_under(company, LOST, 2)
    damaged = batch_under(company, NEW, 9, account_number_encrypted="4000000001")
    before = tokens_of(company.sessions)
    use = look_at_keys(company.sessions, ring_of(NEW, OLD))
    assert use == KeyUse(Counter({0: 3, 1: 4}), lost, damaged)
    assert tokens_of(company.sessions) == before


def test_tokens_that_no_key_opens_stay_as_they_are_and_the_rotation_is_not_complete(company: Company) -> None:
    lost = batch_under(company, LOST, 2)
    batch_under(company, OLD, 2)
    before = tokens_of(company.sessions)
    rotation = rotate(company.sessions, ring_of(NEW, OLD))
    after = tokens_of(company.sessions)
    assert not rotation.complete
    assert rotation.use.of_unknown_keys == lost
    assert {one: after[one] for one in lost} == {one: before[one] for one in lost}
    assert rotation.use.under_older_keys == 0


@dataclass
class Meddling:
    """A key ring during whose work somebody else changes a transaction, once for each number in `turns`."""

    ring: FernetFieldCipher
    company: Company
    meddled: FernetFieldCipher
    turns: list[int]
    numbers: list[str] = field(default_factory=list)

    def key_of(self, token: str) -> int:
        return self.ring.key_of(token)

    def under_newest_key(self, token: str) -> str:
        if self.turns:
            self.numbers.append(f"{len(self.turns)}000111")
            with self.company.sessions.begin() as session:
                session.execute(
                    update(HuntingtonTransaction)
                    .where(HuntingtonTransaction.id == self.turns.pop())
                    .values(account_number_encrypted=self.meddled.encrypt(self.numbers[-1]))
                )
        return self.ring.under_newest_key(token)


def test_a_number_that_somebody_corrects_meanwhile_is_kept_as_they_left_it(company: Company) -> None:
    first, *_ = batch_under(company, OLD, 5)
    meddling = Meddling(ring_of(NEW, OLD), company, ring_of(OLD), [first])
    rotation = rotate(company.sessions, meddling)
    assert rotation.complete
    assert ring_of(NEW).decrypt(tokens_of(company.sessions)[first]) == meddling.numbers[0]


def test_a_rotation_does_not_call_itself_complete_while_an_application_still_uses_the_old_key(company: Company) -> None:
    first, *_ = batch_under(company, OLD, 3)
    meddling = Meddling(ring_of(NEW, OLD), company, ring_of(OLD), [first] * 50)
    rotation = rotate(company.sessions, meddling)
    assert not rotation.complete
    assert rotation.use.under_older_keys > 0


def test_a_row_that_a_worker_holds_holds_nothing_else_up_and_is_waited_for_at_the_end(company: Company) -> None:
    held, *others = batch_under(company, OLD, 20)
    with ThreadPoolExecutor(1) as pool:
        with company.sessions.begin() as holding:
            # However long a busy machine takes, the server is not to take this lock for forgotten.
            holding.execute(text("set local idle_in_transaction_session_timeout = 0"))
            holding.execute(select(HuntingtonTransaction.id).where(HuntingtonTransaction.id == held).with_for_update())
            rotating = pool.submit(rotate, company.sessions, ring_of(NEW, OLD))
            wait_until(lambda: look_at_keys(company.sessions, ring_of(NEW)).tokens[0] == len(others))
            assert not rotating.done()
        assert rotating.result().complete


def test_two_rotations_at_once_do_no_harm(company: Company) -> None:
    batch_under(company, OLD, 40)
    before = {one: ring_of(OLD).decrypt(token) for one, token in tokens_of(company.sessions).items()}
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(rotate, company.sessions, ring_of(NEW, OLD)) for _ in range(2)]
        assert sum(one.result().renewed for one in both) == 40
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == before
