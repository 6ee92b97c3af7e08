"""`seedtrust-ops keys`: a killed rotation can be repeated, workers keep sending, and no key is released too early."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.key_rotation import PAGE_SIZE, count_key_usage
from seedtrust_ops.domain.transfers.attempts import idempotency_key
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.key_rotation_helpers import (
    block_updates,
    cipher_with_keys,
    create_batch_with_key,
    new_key,
    read_numbers,
    read_tokens,
)
from seedtrust_ops_tests.support.waiters import wait_until

NEW, OTHER = new_key(), new_key()
CAN_REMOVE = "Old keys can be removed"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["keys", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def old_key(set_variables: SetVariables, bank_environment: dict[str, str], field_key: str) -> str:
    """The key that encrypts the company's account numbers, now the second of two."""
    set_variables(SEEDTRUST_FIELD_KEY=f"{NEW},{field_key}")
    return field_key


def test_rotation_releases_the_old_key_only_when_it_is_unused(company: Company, old_key: str) -> None:
    company.big_batch(5)
    code, output, _ = run("rotate", "--dry-run")
    assert (code, output) == (0, "5 of 5 account numbers would be re-encrypted.\n")
    code, output, _ = run("check")
    assert (code, output) == (0, "Key 1 (newest): 0 account numbers.\nKey 2: 5 account numbers.\n")
    code, output, _ = run("rotate")
    assert code == 0
    assert "Re-encrypted 5 of 5 account numbers." in output
    assert CAN_REMOVE in output
    assert count_key_usage(company.sessions, cipher_with_keys(NEW)).is_readable


def test_undecryptable_tokens_are_listed_without_their_content(company: Company, old_key: str) -> None:
    lost = create_batch_with_key(company, OTHER, 2)
    damaged = create_batch_with_key(company, OTHER, 1, account_number_encrypted="400123456789")
    company.big_batch(3)
    for command in (("rotate", "--dry-run"), ("rotate",), ("check",)):
        code, output, errors = run(*command)
        assert code == 1, command
        assert f"(transaction IDs: {lost[0]}, {lost[1]}). Add the missing key" in errors
        assert f"(transaction IDs: {damaged[0]}). Ask the payees" in errors
        assert CAN_REMOVE not in output + errors
        assert not any(token in output + errors for token in read_tokens(company.sessions).values())
    assert count_key_usage(company.sessions, cipher_with_keys(NEW)).tokens == {0: 3}


def test_missing_key_is_named(set_variables: SetVariables) -> None:
    set_variables(SEEDTRUST_FIELD_KEY="", SEEDTRUST_DATABASE_URL="postgresql://localhost/seedtrust")
    code, _, errors = run("rotate")
    assert code == 1
    assert errors.startswith("SEEDTRUST_FIELD_KEY is not set.")


@pytest.mark.usefixtures("child_processes")
@pytest.mark.parametrize("page", [1, 2, 3])
def test_killed_rotation_is_completed_by_the_next_one(
    company: Company, bank_environment: dict[str, str], old_key: str, page: int
) -> None:
    company.big_batch(2 * PAGE_SIZE + 100)
    numbers = read_numbers(company.sessions, old_key)
    # Late in the page: the rows before it have new tokens, in a transaction that will never commit.
    blocked_id = sorted(numbers)[min(page * PAGE_SIZE, len(numbers)) - 10]
    with block_updates(company.sessions, blocked_id) as is_blocked:
        rotation = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops.cli.main", "keys", "rotate"],
            env=os.environ | bank_environment | {"SEEDTRUST_FIELD_KEY": f"{NEW},{old_key}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        wait_until(is_blocked, seconds=60, what="the rotation to reach the page")
        rotation.send_signal(signal.SIGKILL)
        killed_output, _ = rotation.communicate()
    assert CAN_REMOVE not in killed_output
    wait_until(lambda: not is_blocked(), what="the server to notice that the rotation was killed")
    assert count_key_usage(company.sessions, cipher_with_keys(NEW, old_key)).tokens == Counter(
        {0: (page - 1) * PAGE_SIZE, 1: len(numbers) - (page - 1) * PAGE_SIZE}
    )

    code, output, _ = run("rotate")

    assert code == 0
    assert CAN_REMOVE in output
    assert read_numbers(company.sessions, NEW) == numbers


@pytest.mark.usefixtures("child_processes")
def test_worker_sends_a_batch_during_key_rotation(
    company: Company, bank: BankProcess, bank_environment: dict[str, str], old_key: str
) -> None:
    batch_id = company.big_batch(200)
    ids = {str(transaction.id) for transaction in company.transactions(batch_id)}

    def posts() -> int:
        return sum(request["method"] == "POST" and request["reference"] in ids for request in bank.control.requests())

    numbers = read_numbers(company.sessions, old_key)
    bank.control.inject_fault("late_response_after_commit", method="POST", times=20, seconds=0.05)
    # After those the bank makes the worker wait, so that the rotation runs while the batch is being sent.
    bank.control.inject_fault("rate_limited", method="POST", times=None, seconds=1)
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
        # The orders that are on their way to the bank are stored with their numbers, too.
        rotated = re.search(r"^Re-encrypted (\d+) of (\d+) ", output)
        assert rotated is not None, output
        # An order that is stored after the transactions' turn has the newest key already.
        assert 220 <= int(rotated[1]) <= int(rotated[2]) <= 400
        assert worker.poll() is None
        bank.control.clear_faults()
        worker_output, _ = worker.communicate(timeout=120)
    finally:
        worker.kill()
        worker.communicate()
    assert worker_output.strip() == "completed"
    assert set(company.statuses(batch_id)) == {"completed"}
    keys = {idempotency_key(transaction.id) for transaction in company.transactions(batch_id)}
    assert not keys & set(bank.control.totals()["keys_paid_more_than_once"])
    assert read_numbers(company.sessions, NEW) == numbers
