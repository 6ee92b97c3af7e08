"""Helpers that call the bank client against the sandbox bank or a scripted bank, and a valid transfer order."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.ports.bank import AccountNumber, OutcomeUnknown, TransferOrder, TransferResponse
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.scripted_bank import (
    LONG_TIMEOUT_SECONDS,
    ScriptedBank,
    ScriptedResponse,
    run_scripted_bank,
    settings,
)

ACCOUNT_NUMBER = "730051186423"
SHORT_TIMEOUT_SECONDS = 4.0
"""The timeout for responses that are late on purpose; longer than a busy machine stalls."""
LATE_SECONDS = 30.0
"""The minimum delay of such a response: an exchange that ended sooner did not wait for it."""
NO_RESPONSE = OutcomeUnknown(f"no response within {SHORT_TIMEOUT_SECONDS:g} seconds")
Result = TypeVar("Result")


def make_order(**changes: Any) -> TransferOrder:
    """Return a valid order with a unique key, with these changes; its reference is the last part of its key."""
    key = changes.get("idempotency_key", f"seedtrust-test-{secrets.token_hex(8)}")
    valid = {
        "idempotency_key": key,
        "method": "wire",
        "amount_cents": 12_500,
        "funding_account_id": "acct_escrow",
        "payee_name": "Dana Whitfield",
        "routing_number": "044000024",
        "account_number": AccountNumber(ACCOUNT_NUMBER),
        "account_type": "checking",
        "reference": key.rpartition("-")[2],
    }
    return TransferOrder(**(valid | changes))


def may_send() -> bool:
    """Never cancel the request."""
    return True


def settings_of(bank: BankProcess, **changes: Any) -> HuntingtonSettings:
    """Return the settings for a client of the sandbox bank."""
    return settings(bank.url, **({"api_key": bank.api_key} | changes))


def run_with_client(bank_settings: HuntingtonSettings, work: Callable[[HuntingtonBank], Awaitable[Result]]) -> Result:
    """Run `work` with a client of the bank in `bank_settings`, on its own event loop."""

    async def run_work() -> Result:
        async with open_huntington_bank(bank_settings) as client:
            return await work(client)

    return asyncio.run(run_work())


def run_with_scripted_bank(
    work: Callable[[ScriptedBank], Awaitable[Result]],
    *responses: ScriptedResponse,
    timeout_seconds: float = LONG_TIMEOUT_SECONDS,
) -> Result:
    """Run `work` with a client of a bank that gives these responses."""

    async def run_work() -> Result:
        async with run_scripted_bank(*responses, timeout_seconds=timeout_seconds) as bank:
            return await work(bank)

    return asyncio.run(run_work())


def response_to(order: TransferOrder, *responses: ScriptedResponse) -> TransferResponse:
    """Return what the client returns for this order if the bank gives these responses."""
    return run_with_scripted_bank(lambda bank: bank.client.create_transfer(order, may_send), *responses)
