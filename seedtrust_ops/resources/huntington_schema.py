"""Reads and writes the JSON of `bank_api.yaml`: what an order looks like on the wire, and what an answer says.

Connections and patience are `huntington_bank`'s. No account number and no body is ever put into a message.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from seedtrust_ops.formatting import strip_control_chars
from seedtrust_ops.ports.bank import (
    Answer,
    BankStatus,
    BankTransfer,
    IdempotencyConflict,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    Unauthorized,
)
from seedtrust_ops.resources.http1_connection import BankResponse

DEFAULT_RETRY_AFTER_SECONDS = 1.0
"""How long a 429 without a readable Retry-After is waited for."""
LONGEST_WAIT_SECONDS = 3600.0
"""The longest Retry-After that is believed; after that the bank is asked again."""
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
# Digits with as much between them as people write between the groups of an account number.
_DIGITS = re.compile(r"\d(?:[\W_]{0,2}\d){3,}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
Clean = Callable[[str], str]


class WireTransfer(BaseModel):
    """A transfer as the bank writes it."""

    # What a database could not hold makes the answer unreadable here, not a failed commit later.
    id: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
    idempotency_key: str
    status: BankStatus
    amount_cents: Annotated[int, Field(ge=0, lt=2**63)]
    reference: str
    updated_at: AwareDatetime
    return_code: str | None = None
    reason: str | None = None

    def spoken(self, clean: Clean) -> BankTransfer:
        """Return it in the domain's words, its free text cleaned."""
        return BankTransfer(
            id=self.id,
            idempotency_key=self.idempotency_key,
            status=self.status,
            amount_cents=self.amount_cents,
            reference=self.reference,
            updated_at=self.updated_at,
            return_code=clean(self.return_code) if self.return_code else None,
            reason=clean(self.reason) if self.reason else None,
        )


class WirePage(BaseModel):
    """A page of transfers."""

    data: list[WireTransfer]
    next_cursor: str | None


class WireProblem(BaseModel):
    """Why the bank refused or failed."""

    code: str
    message: str = ""


def without_numbers(text: str) -> str:
    """Return the bank's free text with every run of four or more digits masked: it may quote an account number."""
    return _DIGITS.sub("••••", strip_control_chars(text))


def body_of(order: TransferOrder) -> dict[str, Any]:
    """Return the order as the bank reads it, with the whole account number."""
    return {
        "method": order.method,
        "amount_cents": order.amount_cents,
        "currency": "USD",
        "funding_account_id": order.funding_account_id,
        "counterparty": {
            "name": order.payee_name,
            "routing_number": order.routing_number,
            "account_number": order.account_number.reveal(),
            "account_type": order.account_type,
        },
        "reference": order.reference,
    }


def read_answer(order: TransferOrder, response: BankResponse, clean: Clean) -> Answer:
    """Return what the bank's answer to `order` says; what can't be read, or the contract does not name, is unknown."""
    status = response.status
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return _read_transfer(order, response, clean)
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized()
    if status == HTTPStatus.CONFLICT:
        return IdempotencyConflict()
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(retry_after_seconds(response))
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _read_refusal(response, clean)
    return OutcomeUnknown(f"HTTP {status}")


def _read_transfer(order: TransferOrder, response: BankResponse, clean: Clean) -> Answer:
    try:
        transfer = WireTransfer.model_validate_json(response.content).spoken(clean)
    except ValidationError:
        return OutcomeUnknown("the answer could not be read")
    if transfer.idempotency_key != order.idempotency_key:
        return OutcomeUnknown("the answer was about another transfer")
    return Originated(transfer)


def _read_refusal(response: BankResponse, clean: Clean) -> Answer:
    try:
        problem = WireProblem.model_validate_json(response.content)
    except ValidationError:
        # A refusal is final by the contract, but one that can't be read may come from something in between.
        return OutcomeUnknown("HTTP 422 with an answer that could not be read")
    code = problem.code if _CODE.fullmatch(problem.code) and clean(problem.code) == problem.code else "refused"
    return Refused(code, clean(problem.message))


def retry_after_seconds(response: BankResponse) -> float:
    """Return Retry-After in seconds, given as a number or as an HTTP date (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return DEFAULT_RETRY_AFTER_SECONDS
    # Of the three forms of an HTTP date, one names no zone; all of them are in UTC.
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT_SECONDS)
