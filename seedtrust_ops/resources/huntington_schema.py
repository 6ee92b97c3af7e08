"""The JSON of `bank_api.yaml`: serializes transfer orders and parses responses.

Connections, retries and timeouts are in `huntington_client`. Account numbers and bodies never appear in its messages.
See docs/decisions/failure-messages.md.
"""

import codecs
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)

from seedtrust_ops.formatting import shorten, strip_control_chars
from seedtrust_ops.ports.bank import (
    BankStatus,
    BankTransfer,
    BankTransfers,
    FundingAccount,
    IdempotencyConflict,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    TransferResponse,
    Unauthorized,
    UnreadableTransfer,
)
from seedtrust_ops.resources.http1_connection import HttpResponse

DEFAULT_RETRY_AFTER_SECONDS = 1.0
"""The wait after a 429 without a readable Retry-After."""
MAX_RETRY_AFTER_SECONDS = 3600.0
"""The longest Retry-After that is honored; after that, the request is retried."""
MAX_BANK_TEXT_CHARS = 500
"""The bank's free text is kept up to this length, less than is loaded of `failure_reason`, which is compared to it."""
MAX_AMOUNT_CENTS = 9_999_999_999
"""The largest transfer (bank_api.yaml, TransferRequest)."""
MAX_ACCOUNT_WAIT_SECONDS = 2.0
"""Other batches wait while the account is read, so it is not read again after a longer Retry-After."""
MAX_IDENTIFIER_CHARS = 200
"""Longer ids, keys and references are not read: the database's indexes could not hold them."""
MAX_CURSOR_CHARS = 2_000
MAX_INTEGER_DIGITS = 20
MAX_SHOWN_CHARS = 40
EARLIEST_YEAR, LATEST_YEAR = 2000, 2099
"""Earlier and later moments are placeholders. The newest answer of the bank counts, so they would hide all others."""
UNPARSABLE = "the response could not be parsed"
_WORDS = ("status", "method", "currency")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
# Digits, with the separators that people write between the groups of an account number.
_DIGITS = re.compile(r"\d(?:[\W_]{0,2}\d){3,}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_IN_PROGRESS = re.compile(r"in[-_ ]?progress", re.IGNORECASE)
Clean = Callable[[str], str]


def _require_rfc_3339(value: object) -> object:
    # Left to itself, pydantic also takes numbers and days for moments.
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return value
    raise ValueError("Input should be a moment with a time zone")


def _to_utc(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("Input is out of range") from None
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise ValueError("Input is out of range")
    return moment


def _to_storable_text(value: object) -> object:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


# What the database or Python cannot hold is rejected here, so that it does not fail a commit later.
Identifier = Annotated[str, Field(max_length=MAX_IDENTIFIER_CHARS, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")]
Moment = Annotated[AwareDatetime, BeforeValidator(_require_rfc_3339), AfterValidator(_to_utc)]
FreeText = Annotated[str | None, BeforeValidator(_to_storable_text)]
_IDENTIFIER = TypeAdapter[str](Identifier)


class WireTransfer(BaseModel):
    """A transfer in the bank's JSON."""

    id: Identifier
    idempotency_key: Identifier
    status: BankStatus
    method: Literal["ach", "wire"]
    amount_cents: Annotated[int, Field(strict=True, ge=1, le=MAX_AMOUNT_CENTS)]
    currency: Literal["USD"]
    reference: Identifier
    created_at: Moment
    updated_at: Moment
    return_code: FreeText = None
    reason: FreeText = None

    def to_bank_transfer(self, clean: Clean) -> BankTransfer:
        """Convert to the port's type, with its free text masked by `clean`."""
        return BankTransfer(
            id=self.id,
            idempotency_key=self.idempotency_key,
            status=self.status,
            method=self.method,
            amount_cents=self.amount_cents,
            reference=self.reference,
            created_at=self.created_at,
            updated_at=self.updated_at,
            return_code=clean(self.return_code) if self.return_code else None,
            reason=clean(self.reason) if self.reason else None,
        )


class WireAccount(BaseModel):
    """A funding account in the bank's JSON; an overdrawn one has less than nothing available."""

    available_cents: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    currency: Literal["USD"]


@dataclass(frozen=True)
class WirePage:
    """A page of transfers, each parsed on its own."""

    transfers: BankTransfers
    next_cursor: str | None


class WireError(BaseModel):
    """The bank's error JSON."""

    code: str
    message: FreeText = None


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
        return _parse_originated(order, response, clean)
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized()
    if status == HTTPStatus.CONFLICT:
        return _parse_conflict(response)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(retry_after_seconds(response))
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _parse_refusal(response, clean)
    return OutcomeUnknown(f"HTTP {status}")


def _parse_originated(order: TransferOrder, response: HttpResponse, clean: Clean) -> TransferResponse:
    transfer = parse_transfer(response, clean)
    if not isinstance(transfer, BankTransfer):
        return OutcomeUnknown(UNPARSABLE)
    if (transfer.idempotency_key, transfer.reference) != (order.idempotency_key, order.reference):
        return OutcomeUnknown("the response was for another transfer")
    return Originated(transfer)


def parse_page(response: HttpResponse, clean: Clean) -> WirePage | None:
    """Return the page, or None if the response is not a page. A transfer that cannot be read hides no other."""
    page = _parse_json(response.content)
    if not isinstance(page, dict) or isinstance(page, _AmbiguousObject):
        return None
    rows, next_cursor = page.get("data"), page.get("next_cursor", ...)
    is_cursor = next_cursor is None or (isinstance(next_cursor, str) and len(next_cursor) <= MAX_CURSOR_CHARS)
    if not isinstance(rows, list) or not is_cursor:
        return None
    transfers = BankTransfers()
    for row in rows:
        match _parse_row(row, clean):
            case BankTransfer() as transfer:
                transfers.readable.append(transfer)
            case unreadable:
                transfers.unreadable.append(unreadable)
    return WirePage(transfers, next_cursor)


def parse_transfer(response: HttpResponse, clean: Clean) -> BankTransfer | UnreadableTransfer | None:
    """Return the response's only transfer, or None if the response is not JSON."""
    row = _parse_json(response.content)
    return None if row is None else _parse_row(row, clean)


def parse_account(account_id: str, response: HttpResponse) -> FundingAccount | str | None:
    """Return the account, or what is wrong with it, or None if the response is not about this account."""
    if response.status == HTTPStatus.NOT_FOUND:
        return "The bank knows no such account. Check HUNTINGTON_FUNDING_ACCOUNT_ID."
    if response.status == HTTPStatus.TOO_MANY_REQUESTS and retry_after_seconds(response) > MAX_ACCOUNT_WAIT_SECONDS:
        return f"The bank asks us to wait for {retry_after_seconds(response):g} seconds (429)."
    body = _parse_json(response.content) if response.status == HTTPStatus.OK else None
    if not isinstance(body, dict) or isinstance(body, _AmbiguousObject) or body.get("id") != account_id:
        return None
    try:
        account = WireAccount.model_validate(body)
    except ValidationError as error:
        return " ".join(f"{one['loc'][0]}: {one['msg']}." for one in error.errors(include_input=False))
    return FundingAccount(account_id, account.available_cents)


def _parse_row(row: object, clean: Clean) -> BankTransfer | UnreadableTransfer:
    if not isinstance(row, dict):
        return UnreadableTransfer(None, None, None, "It is not an object.")
    try:
        if isinstance(row, _AmbiguousObject):
            problem = "It has the same field twice."
        else:
            return WireTransfer.model_validate(row).to_bank_transfer(clean)
    except ValidationError as error:
        problem = _describe_problems(error, row, clean)
    return UnreadableTransfer(
        bank_transfer_id=_identifier_or_none(row.get("id")),
        idempotency_key=_identifier_or_none(row.get("idempotency_key")),
        reference=_identifier_or_none(row.get("reference")),
        problem=problem,
    )


def _identifier_or_none(value: object) -> str | None:
    try:
        return _IDENTIFIER.validate_python(value, strict=True)
    except ValidationError:
        return None


def _describe_problems(error: ValidationError, row: Mapping[str, Any], clean: Clean) -> str:
    """Return what is wrong with each field; a value is shown only if it is a word that we do not know."""
    problems = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = str(one["loc"][0])
        value = row.get(name)
        shown = f" {clean(value)[:MAX_SHOWN_CHARS]!r}" if name in _WORDS and isinstance(value, str) else ""
        problems.append(f"{name}{shown}: {one['msg'].removeprefix('Value error, ')}.")
    return " ".join(problems)


class _AmbiguousObject(dict[str, Any]):
    """A JSON object that has the same key twice, so that readers disagree on what it says."""


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _AmbiguousObject(found)


def _to_number(digits: str) -> float:
    # Python refuses to convert thousands of digits, which would make everything around them unreadable.
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else math.inf


_DECODER = json.JSONDecoder(object_pairs_hook=_to_object, parse_int=_to_number, strict=False)


def _parse_json(content: bytes) -> Any:
    """Return the JSON, or None if it is not JSON. Bytes that are not UTF-8 spoil only the text that they are in."""
    try:
        return _DECODER.decode(content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _parse_conflict(response: HttpResponse) -> TransferResponse:
    try:
        code = WireError.model_validate(_parse_json(response.content)).code
    except ValidationError:
        return IdempotencyConflict()
    if _IN_PROGRESS.search(code):
        return OutcomeUnknown("HTTP 409: a request with this key is still in progress")
    return IdempotencyConflict()


def _parse_refusal(response: HttpResponse, clean: Clean) -> TransferResponse:
    try:
        error = WireError.model_validate(_parse_json(response.content))
    except ValidationError:
        # A refusal is final by the contract, but an unreadable one may come from a proxy or gateway in between.
        return OutcomeUnknown("HTTP 422 with a response that could not be parsed")
    code = error.code if _CODE.fullmatch(error.code) and clean(error.code) == error.code else "refused"
    return Refused(code, clean(error.message or ""))


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
