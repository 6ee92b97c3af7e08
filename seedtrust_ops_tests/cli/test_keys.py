"""`seedtrust-ops keys`: it can be killed anywhere and repeated while workers send, and it promises nothing false."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.config import get_settings
from seedtrust_ops.domain.key_rotation import PAGE, look_at_keys
from seedtrust_ops.domain.transfers.idempotency_keys import idempotency_key
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import Change, change
from seedtrust_ops_tests.support.rotated_keys import batch_under, door_before, new_key, ring_of, tokens_of
from seedtrust_ops_tests.support.waiters import wait_until

__all__ = ["change"]

NEW, OTHER = new_key(), new_key()
MAY_GO = "the old key can be removed"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["keys", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def old_key(change: Change, field_key: str) -> str:
    """The key that the company's numbers are under, now the second of two."""
    change(SEEDTRUST_FIELD_KEY=f"{NEW},{field_key}")
    return field_key


def test_rotate_says_that_the_old_key_can_go_only_after_it_can(company: Company, old_key: str) -> None:
    company.big_batch(5)
    code, output, _ = run("rotate", "--dry-run")
    assert (code, output) == (0, "5 of 5 account numbers would be encrypted anew.\n")
    code, output, _ = run("check")
    assert (code, output) == (0, "Key 1 (the newest): 0 account numbers.\nKey 2: 5 account numbers.\n")
    code, output, _ = run("rotate")
    assert code == 0
    assert "5 of 5 account numbers were encrypted anew." in output
    assert MAY_GO in output
    assert look_at_keys(company.sessions, ring_of(NEW)).readable


def test_tokens_that_no_key_opens_are_named_without_their_content(company: Company, old_key: str) -> None:
    lost = batch_under(company, OTHER, 2)
    damaged = batch_under(company, OTHER, 1, account_number_encrypted="400123456789")
    company.big_batch(3)
    for command in (("rotate", "--dry-run"), ("rotate",), ("check",)):
        code, output, said = run(*command)
        assert code == 1, command
        assert f"(transactions {lost[0]}, {lost[1]}): add the key" in said
        assert f"(transactions {damaged[0]}): ask the payees" in said
        assert MAY_GO not in output + said
        assert not any(token in output + said for token in tokens_of(company.sessions).values())
    assert look_at_keys(company.sessions, ring_of(NEW)).tokens == {0: 3}


def test_a_key_that_is_missing_is_named(change: Change) -> None:
    change(SEEDTRUST_FIELD_KEY="")
    code, _, said = run("rotate")
    assert code == 1
    assert said.startswith("SEEDTRUST_FIELD_KEY is not set.")
    get_settings.cache_clear()


@pytest.mark.parametrize("page", [1, 2, 3])
def test_rotation_that_is_killed_in_the_middle_of_a_page_is_completed_by_the_next(
    company: Company, bank_environment: dict[str, str], old_key: str, page: int
) -> None:
    company.big_batch(2 * PAGE + 100)
    numbers = {one: ring_of(old_key).decrypt(token) for one, token in tokens_of(company.sessions).items()}
    # Late in the page: the rows before it have their new tokens, in a transaction that will never be committed.
    waited_at = sorted(numbers)[min(page * PAGE, len(numbers)) - 10]
    with door_before(company.sessions, waited_at) as somebody_waits:
        rotating = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "keys", "rotate"],
            env=os.environ | bank_environment | {"SEEDTRUST_FIELD_KEY": f"{NEW},{old_key}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        wait_until(somebody_waits, seconds=60, what="the rotation to come to the page")
        rotating.send_signal(signal.SIGKILL)
        said, _ = rotating.communicate()
    assert MAY_GO not in said
    wait_until(lambda: not somebody_waits(), what="the server to see that the rotation is dead")
    assert look_at_keys(company.sessions, ring_of(NEW, old_key)).tokens == Counter(
        {0: (page - 1) * PAGE, 1: len(numbers) - (page - 1) * PAGE}
    )

    code, output, _ = run("rotate")

    assert code == 0
    assert MAY_GO in output
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == numbers


def test_a_worker_sends_a_batch_while_its_numbers_are_rotated(
    company: Company, bank: BankProcess, bank_environment: dict[str, str], old_key: str
) -> None:
    batch_id = company.big_batch(200)
    ids = {str(one.id) for one in company.transactions(batch_id)}

    def posts() -> int:
        return sum(one["method"] == "POST" and one["reference"] in ids for one in bank.control.requests())

    numbers = {one: ring_of(old_key).decrypt(token) for one, token in tokens_of(company.sessions).items()}
    bank.control.order_fault("answer_late_after_commit", method="POST", times=20, seconds=0.05)
    # After those the bank has the worker wait, so that it is sure to be in the middle of its work.
    bank.control.order_fault("rate_limited", method="POST", times=None, seconds=1)
    worker = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops_tests.domain.transfers.worker_process", str(batch_id), "run-1"],
        env=os.environ | bank_environment | {"SEEDTRUST_FIELD_KEY": f"{NEW},{old_key}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: posts() >= 20, seconds=60, what="20 requests at the bank")
        code, output, _ = run("rotate")
        assert code == 0, output
        assert re.search(r"^200 of 200 ", output)
        assert worker.poll() is None
        bank.control.clear_faults()
        said, _ = worker.communicate(timeout=120)
    finally:
        worker.kill()
        worker.communicate()
    assert said.strip() == "completed"
    assert set(company.statuses(batch_id)) == {"completed"}
    ours = {idempotency_key(one.id) for one in company.transactions(batch_id)}
    assert not ours & set(bank.control.totals()["keys_paid_more_than_once"])
    assert {one: ring_of(NEW).decrypt(token) for one, token in tokens_of(company.sessions).items()} == numbers
