"""Asks the bank's client one question, be it of the sandbox bank or of a scripted one, and has an order to send."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.ports.bank import AccountNumber, Answer, OutcomeUnknown, TransferOrder
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.support.scripted_bank import PATIENT_SECONDS, Says, ScriptedBank, bank_that_says, settings

ACCOUNT_NUMBER = "730051186423"
IMPATIENT_SECONDS = 4.0
"""How long an answer is waited for that comes late on purpose; longer than a busy machine stands still."""
LATE = 30.0
"""How many seconds late such an answer is at least: an exchange that ended sooner did not wait for it."""
NO_ANSWER = OutcomeUnknown(f"no answer within {IMPATIENT_SECONDS:g} seconds")
Result = TypeVar("Result")


def order(**changes: Any) -> TransferOrder:
    """A sound order under a key of its own, but for these changes."""
    sound = {
        "idempotency_key": f"seedtrust-test-{secrets.token_hex(8)}",
        "method": "wire",
        "amount_cents": 12_500,
        "funding_account_id": "acct_escrow",
        "payee_name": "Dana Whitfield",
        "routing_number": "044000024",
        "account_number": AccountNumber(ACCOUNT_NUMBER),
        "account_type": "checking",
        "reference": secrets.token_hex(6),
    }
    return TransferOrder(**(sound | changes))


def may_leave() -> bool:
    """Nobody calls the request back."""
    return True


def settings_of(bank: BankProcess, **changes: Any) -> HuntingtonSettings:
    """The settings of a client of the sandbox bank."""
    return settings(bank.url, **({"api_key": bank.api_key} | changes))


def ask(where: HuntingtonSettings, question: Callable[[HuntingtonBank], Awaitable[Result]]) -> Result:
    """Ask the bank at `where`, on an event loop of the question's own."""

    async def asking() -> Result:
        async with open_huntington_bank(where) as bank:
            return await question(bank)

    return asyncio.run(asking())


def ask_scripted(
    question: Callable[[ScriptedBank], Awaitable[Result]], *answers: Says, timeout_seconds: float = PATIENT_SECONDS
) -> Result:
    """Ask a bank that gives these answers."""

    async def asking() -> Result:
        async with bank_that_says(*answers, timeout_seconds=timeout_seconds) as bank:
            return await question(bank)

    return asyncio.run(asking())


def answer_to(one: TransferOrder, *answers: Says) -> Answer:
    """What the client makes of these answers to this order."""
    return ask_scripted(lambda bank: bank.client.create_transfer(one, may_leave), *answers)
