"""Schemathesis checks the running bank against bank_api.yaml, with valid and with invalid requests.

Two of its checks are excluded where the contract does not decide: it defines no response to a malformed GET query, and
a valid request may still name an account that does not exist.
"""

from importlib.resources import files
from typing import Any

import pytest
import schemathesis
from schemathesis import Case
from schemathesis.checks import positive_data_acceptance, status_code_conformance

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, ROUTING_NUMBER, unique

EXAMPLES = 40


def contract(mode: str) -> Any:
    generation = {"deterministic": True, "max-examples": EXAMPLES, "mode": mode}
    auth = {"openapi": {"bearer": {"bearer": API_KEY}}}
    # The contract's server is a placeholder; each call passes the running bank's URL instead.
    placeholder = "http://127.0.0.1"
    config = schemathesis.Config.from_dict({"generation": generation, "auth": auth, "base-url": placeholder})
    path = files("seedtrust_ops.sandbox.bank") / "bank_api.yaml"
    return schemathesis.openapi.from_path(str(path), config=config)


@pytest.fixture(scope="module")
def faultless_bank(shared_bank: BankProcess) -> BankProcess:
    shared_bank.control.clear_faults()
    return shared_bank


@contract("positive").parametrize()
def test_responses_to_valid_requests_match_the_contract(faultless_bank: BankProcess, case: Case) -> None:
    excluded = [positive_data_acceptance]
    if case.method == "GET":
        excluded.append(status_code_conformance)
    case.call_and_validate(faultless_bank.url, excluded_checks=excluded)


@contract("positive").include(operation_id="create_transfer").parametrize()
def test_valid_requests_with_existing_accounts_are_originated(faultless_bank: BankProcess, case: Case) -> None:
    case.headers["Idempotency-Key"] = unique("key")
    case.body["funding_account_id"] = faultless_bank.funding_account_id
    case.body["counterparty"]["routing_number"] = ROUTING_NUMBER
    assert case.call_and_validate(faultless_bank.url).status_code == 201


@contract("negative").parametrize()
def test_invalid_requests_are_refused_as_the_contract_says(faultless_bank: BankProcess, case: Case) -> None:
    excluded = [status_code_conformance] if case.method == "GET" else []
    case.call_and_validate(faultless_bank.url, excluded_checks=excluded)
