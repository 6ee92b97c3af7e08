"""The JSON of `bank_api.yaml`: serializes transfer orders and parses responses.

Connections, retries and timeouts are in `huntington_client`. Account numbers and bodies never appear in its messages.
See docs/decisions/failure-messages.md.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from seedtrust_ops.formatting import shorten, strip_control_chars
from seedtrust_ops.ports.bank import (
    BankStatus,
    BankTransfer,
    IdempotencyConflict,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    TransferResponse,
    Unauthorized,
)
from seedtrust_ops.resources.http1_connection import HttpResponse

DEFAULT_RETRY_AFTER_SECONDS = 1.0
"""The wait after a 429 without a readable Retry-After."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""The longest Retry-After that is honored; after that, the request is retried."""
MAX_BANK_TEXT_CHARS = 500
"""The bank's free text is kept up to this length, less than is loaded of `failure_reason`, which is compared to it."""
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
# Digits, with the separators that people write between the groups of an account number.
_DIGITS = re.compile(r"\d(?:[\W_]{0,2}\d){3,}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_IN_PROGRESS = re.compile(r"in[-_ ]?progress", re.IGNORECASE)
Clean = Callable[[str], str]


class WireTransfer(BaseModel):
    """A transfer in the bank's JSON."""

    # A value that the database cannot store is rejected here, so that it does not fail a commit later.
    id: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
    idempotency_key: str
    status: BankStatus
    amount_cents: Annotated[int, Field(ge=0, lt=2**63)]
    reference: str
    updated_at: AwareDatetime
    return_code: str | None = None
    reason: str | None = None

    def to_bank_transfer(self, clean: Clean) -> BankTransfer:
        """Convert to the port's type, with its free text masked by `clean`."""
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
    """A page of transfers in the bank's JSON."""

    data: list[WireTransfer]
    next_cursor: str | None


class WireError(BaseModel):
    """The bank's error JSON."""

    code: str
    message: str = ""


def mask_digits(text: str) -> str:
    """Cut the bank's free text, and mask every run of four or more digits in it: it may quote an account number."""
    return shorten(_DIGITS.sub("••••", strip_control_chars(text)), MAX_BANK_TEXT_CHARS)


def to_request_body(order: TransferOrder) -> dict[str, Any]:
    """Return the JSON body for `order`, including the full account number."""
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


def parse_response(order: TransferOrder, response: HttpResponse, clean: Clean) -> TransferResponse:
    """Parse the bank's response to `order`; anything unreadable or outside the contract is `OutcomeUnknown`."""
    status = response.status
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return _parse_transfer(order, response, clean)
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized()
    if status == HTTPStatus.CONFLICT:
        return _parse_conflict(response)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(retry_after_seconds(response))
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _parse_refusal(response, clean)
    return OutcomeUnknown(f"HTTP {status}")


def _parse_transfer(order: TransferOrder, response: HttpResponse, clean: Clean) -> TransferResponse:
    try:
        transfer = WireTransfer.model_validate_json(response.content).to_bank_transfer(clean)
    except ValidationError:
        return OutcomeUnknown("the response could not be parsed")
    if transfer.idempotency_key != order.idempotency_key:
        return OutcomeUnknown("the response was for another transfer")
    return Originated(transfer)


def _parse_conflict(response: HttpResponse) -> TransferResponse:
    try:
        code = WireError.model_validate_json(response.content).code
    except ValidationError:
        return IdempotencyConflict()
    if _IN_PROGRESS.search(code):
        return OutcomeUnknown("HTTP 409: a request with this key is still in progress")
    return IdempotencyConflict()


def _parse_refusal(response: HttpResponse, clean: Clean) -> TransferResponse:
    try:
        error = WireError.model_validate_json(response.content)
    except ValidationError:
        # A refusal is final by the contract, but an unreadable one may come from a proxy or gateway in between.
        return OutcomeUnknown("HTTP 422 with a response that could not be parsed")
    code = error.code if _CODE.fullmatch(error.code) and clean(error.code) == error.code else "refused"
    return Refused(code, clean(error.message))


def retry_after_seconds(response: HttpResponse) -> float:
    """Return Retry-After in seconds; the header is a number or an HTTP date (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return DEFAULT_RETRY_AFTER_SECONDS
    # One of the three HTTP date formats has no zone; all of them are in UTC.
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS)
