"""A transaction pays the account whose last four digits people see and approve, or nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import func, update

from seedtrust_ops.client import bind_account_number
from seedtrust_ops.domain.key_rotation import rotate
from seedtrust_ops.domain.transfers.sender import BatchSender
from seedtrust_ops.tables import HuntingtonTransaction
from seedtrust_ops_tests.domain.transfers.transfer_worker import Worker
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.key_rotation_helpers import cipher_with_keys, new_key

NUMBER, OTHER_NUMBER = "400100007777", "400100008888"
SAME_ENDING = "900200007777"


def _pay(company: Company, batch_id: int, account_number: str) -> int:
    return company.transaction(batch_id, company.request(company.case(), 500), 500, account_number=account_number)


def _change(company: Company, transaction_id: int, **columns: str) -> None:
    with company.sessions.begin() as session:
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.id == transaction_id).values(**columns)
        )


@pytest.mark.parametrize(
    ("content", "last4", "reason"),
    [
        (lambda _own, _other: OTHER_NUMBER, "7777", "does not end in account_number_last4"),
        (lambda own, _other: bind_account_number(OTHER_NUMBER, own), "7777", "does not end in account_number_last4"),
        (lambda _own, other: bind_account_number(SAME_ENDING, other), "7777", "encrypted for another transaction"),
        (lambda _own, other: bind_account_number(OTHER_NUMBER, other), "8888", "encrypted for another transaction"),
        (lambda own, _other: bind_account_number(NUMBER, own), "777", "is not four digits"),
        (lambda _own, _other: NUMBER, "", "is not four digits"),
        (lambda _own, _other: NUMBER, "07777", "is not four digits"),
        (lambda _own, _other: NUMBER, "\u0667" * 4, "is not four digits"),
        (lambda _own, _other: f":{NUMBER}", "7777", "is not 4 to 17 digits"),
    ],
    ids=[
        "copied token",
        "bound token of another number",
        "copied bound token with the same ending",
        "copied bound token and its ending",
        "three digits",
        "no digits",
        "five digits",
        "digits of another script",
        "empty binding",
    ],
)
def test_copied_account_number_is_not_paid(
    worker: Worker, company: Company, content: Callable[[int, int], str], last4: str, reason: str
) -> None:
    batch_id = company.batch()
    victim, honest = _pay(company, batch_id, NUMBER), _pay(company, batch_id, OTHER_NUMBER)
    token = company.cipher.encrypt(content(victim, honest))
    _change(company, victim, account_number_encrypted=token, account_number_last4=last4)

    worker.process(batch_id)

    assert company.statuses(batch_id) == ["failed", "completed"]
    failure = company.transactions(batch_id)[0].failure_reason or ""
    assert failure.startswith("not sent: ")
    assert reason in failure
    assert not any(digits in failure for digits in (NUMBER[-4:], OTHER_NUMBER[-4:]))
    assert worker.posts(victim) == 0


@pytest.mark.parametrize("column", ["payee_name", "routing_number", "account_number_encrypted", "account_number_last4"])
def test_texts_longer_than_the_cut_fail_their_transaction_only(worker: Worker, company: Company, column: str) -> None:
    batch_id = company.batch()
    long, honest = _pay(company, batch_id, NUMBER), _pay(company, batch_id, NUMBER)
    stored = str(getattr(company.transactions(batch_id)[0], column))
    _change(company, long, **{column: stored + "0" * 3_000_000})

    worker.process(batch_id)

    assert company.statuses(batch_id) == ["failed", "completed"]
    assert [worker.posts(one) for one in (long, honest)] == [0, 1]


def test_failure_reason_of_270_mb_does_not_stop_sending(worker: Worker, company: Company) -> None:
    case = company.case()
    batch_id = company.batch([500], case=case)
    failed = company.transaction(company.batch(case=case), company.request(case, 500), 500, status="failed")
    with company.sessions.begin() as session:
        reason = func.repeat("é", 270_000_000 // 2)
        session.execute(
            update(HuntingtonTransaction).where(HuntingtonTransaction.id == failed).values(failure_reason=reason)
        )

    worker.process(batch_id)
    worker.heal()

    assert company.statuses(batch_id) == ["completed"]


def test_account_number_copied_after_preflight_is_not_paid(
    worker: Worker, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = company.batch()
    first, victim, last = (_pay(company, batch_id, number) for number in (OTHER_NUMBER, NUMBER, OTHER_NUMBER))
    send = BatchSender.send

    async def copy_and_send(sender: BatchSender, transaction_ids: list[int]) -> None:
        assert victim in transaction_ids
        _change(company, victim, account_number_encrypted=company.cipher.encrypt(OTHER_NUMBER))
        await send(sender, transaction_ids)

    monkeypatch.setattr(BatchSender, "send", copy_and_send)
    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed", "failed", "completed"]
    assert "changed after preflight" in (company.transactions(batch_id)[1].failure_reason or "")
    assert [worker.posts(one) for one in (first, victim, last)] == [1, 0, 1]
    assert company.outcomes(victim) == []


def test_bound_account_number_is_paid_and_stays_bound_through_a_rotation(worker: Worker, company: Company) -> None:
    batch_id = company.batch()
    bound, copied, unbound = (_pay(company, batch_id, NUMBER) for _ in range(3))
    old_key, new = new_key(), new_key()
    old_cipher = cipher_with_keys(old_key)
    token = old_cipher.encrypt(bind_account_number(NUMBER, bound))
    for transaction_id in (bound, copied):
        _change(company, transaction_id, account_number_encrypted=token)
    _change(company, unbound, account_number_encrypted=old_cipher.encrypt(NUMBER))

    assert rotate(company.sessions, cipher_with_keys(new, old_key)).is_complete
    worker = replace(worker, company=Company(company.sessions, cipher_with_keys(new)))
    worker.process(batch_id)

    assert company.statuses(batch_id) == ["completed", "failed", "completed"]
