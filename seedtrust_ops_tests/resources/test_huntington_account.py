"""The funding account is read strictly: what is not exactly the contract's account covers nothing."""

from typing import Any

import pytest

from seedtrust_ops.ports.bank import BankInquiryFailed, BankUnauthorized, FundingAccount, FundingAccountUnreadable
from seedtrust_ops.resources.huntington_client import LOOKUP_ATTEMPTS
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.resources.bank_calls import run_with_client, run_with_scripted_bank, settings_of
from seedtrust_ops_tests.support.scripted_bank import ScriptedBank, ScriptedResponse

ACCOUNT: dict[str, Any] = {"id": "acct_escrow", "available_cents": 12_345, "currency": "USD"}


def read(*responses: ScriptedResponse) -> tuple[FundingAccount | BankInquiryFailed, int]:
    """Return what reading the account returns or raises, and how many requests it took."""

    async def get_account(scripted: ScriptedBank) -> tuple[FundingAccount | BankInquiryFailed, int]:
        try:
            return await scripted.client.get_account("acct_escrow"), len(scripted.requests)
        except BankInquiryFailed as error:
            return error, len(scripted.requests)

    return run_with_scripted_bank(get_account, *responses)


def test_funding_account_is_read_from_the_bank(bank: BankProcess) -> None:
    bank.control.set_available_cents(12_345)
    account = run_with_client(settings_of(bank), lambda client: client.get_account("acct_escrow"))
    assert account == FundingAccount("acct_escrow", 12_345)


def test_account_that_the_bank_does_not_know_is_unreadable(bank: BankProcess) -> None:
    with pytest.raises(FundingAccountUnreadable, match="HUNTINGTON_FUNDING_ACCOUNT_ID"):
        run_with_client(settings_of(bank), lambda client: client.get_account("../transfers?a"))


def test_overdrawn_account_has_less_than_nothing() -> None:
    assert read(ScriptedResponse(body=ACCOUNT | {"available_cents": -5})) == (FundingAccount("acct_escrow", -5), 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"currency": "EUR"}, "currency"),
        ({"currency": None}, "currency"),
        ({"available_cents": "100"}, "available_cents"),
        ({"available_cents": "1.00"}, "available_cents"),
        ({"available_cents": 100.0}, "available_cents"),
        ({"available_cents": True}, "available_cents"),
        ({"available_cents": None}, "available_cents"),
        ({"available_cents": 2**63}, "available_cents"),
    ],
    ids=lambda value: str(value),
)
def test_account_outside_the_contract_is_unreadable(changes: dict[str, Any], problem: str) -> None:
    error, requests = read(ScriptedResponse(body=ACCOUNT | changes))
    assert isinstance(error, FundingAccountUnreadable)
    assert str(error).startswith(f"Huntington does not say what funding account acct_escrow has. {problem}: ")
    assert requests == 1


def test_long_rate_limit_is_not_waited_for() -> None:
    error, requests = read(ScriptedResponse(429, {}, {"Retry-After": "60"}))
    assert isinstance(error, FundingAccountUnreadable)
    assert "The bank asks us to wait for 60 seconds (429)." in str(error)
    assert requests == 1


@pytest.mark.parametrize(
    "response",
    [
        ScriptedResponse(503),
        ScriptedResponse(302, b"", {"Location": "/"}),
        ScriptedResponse(429, {}, {"Retry-After": "0"}),
        ScriptedResponse(body=b"<html>"),
        ScriptedResponse(body=[ACCOUNT]),
        ScriptedResponse(body={**ACCOUNT, "id": "acct_other"}),
        ScriptedResponse(body={"available_cents": 1, "currency": "USD"}),
        ScriptedResponse(body=b'{"id": "acct_escrow", "available_cents": 1, "available_cents": 9, "currency": "USD"}'),
    ],
    ids=["error", "redirect", "rate limit", "HTML", "list", "another account", "no id", "ambiguous"],
)
def test_answer_about_something_else_is_asked_for_again(response: ScriptedResponse) -> None:
    error, requests = read(response)
    assert isinstance(error, BankInquiryFailed)
    assert not isinstance(error, FundingAccountUnreadable)
    assert requests == LOOKUP_ATTEMPTS
    assert read(response, ScriptedResponse(body=ACCOUNT)) == (FundingAccount("acct_escrow", 12_345), 2)


def test_rejected_key_is_no_answer_about_the_account() -> None:
    with pytest.raises(BankUnauthorized):
        read(ScriptedResponse(401))
