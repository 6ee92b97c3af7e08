"""The running bank is held against bank_api.yaml itself, with requests that fit it and requests that break it.

Two of Schemathesis' checks are left out, each only where the contract is silent: it gives GET no answer for a
malformed query, and a request that fits the schema may still name an account that does not exist.
"""

from importlib.resources import files
from typing import Any

import pytest
import schemathesis
from schemathesis import Case
from schemathesis.checks import positive_data_acceptance, status_code_conformance

from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.sandbox.bank.bank_requests import API_KEY, ROUTING_NUMBER, fresh

EXAMPLES = 40


def contract(mode: str) -> Any:
    generation = {"deterministic": True, "max-examples": EXAMPLES, "mode": mode}
    auth = {"openapi": {"bearer": {"bearer": API_KEY}}}
    # The contract's server is a placeholder that it leaves to its reader; each call names the running bank instead.
    nowhere = "http://127.0.0.1"
    config = schemathesis.Config.from_dict({"generation": generation, "auth": auth, "base-url": nowhere})
    path = files("seedtrust_ops.sandbox.bank") / "bank_api.yaml"
    return schemathesis.openapi.from_path(str(path), config=config)


@pytest.fixture(scope="module")
def honest_bank(shared_bank: BankProcess) -> BankProcess:
    shared_bank.control.clear_faults()
    return shared_bank


@contract("positive").parametrize()
def test_every_answer_to_a_request_that_fits_the_contract_is_one_that_it_describes(
    honest_bank: BankProcess, case: Case
) -> None:
    silent = [positive_data_acceptance]
    if case.method == "GET":
        silent.append(status_code_conformance)
    case.call_and_validate(honest_bank.url, excluded_checks=silent)


@contract("positive").include(operation_id="create_transfer").parametrize()
def test_every_request_that_fits_the_contract_and_names_real_accounts_is_originated(
    honest_bank: BankProcess, case: Case
) -> None:
    case.headers["Idempotency-Key"] = fresh("key")
    case.body["funding_account_id"] = honest_bank.funding_account_id
    case.body["counterparty"]["routing_number"] = ROUTING_NUMBER
    assert case.call_and_validate(honest_bank.url).status_code == 201


@contract("negative").parametrize()
def test_every_request_that_breaks_the_contract_is_refused_as_it_describes(
    honest_bank: BankProcess, case: Case
) -> None:
    silent = [status_code_conformance] if case.method == "GET" else []
    case.call_and_validate(honest_bank.url, excluded_checks=silent)
