"""Parses and validates requests as bank_api.yaml requires: bodies, headers, queries and cursors.

It makes no decision about money; a well-formed request may still be refused by `ledger`.

The contract has a closed list of 422 codes for POST /v1/transfers and none for a malformed request. A malformed
amount or currency is therefore `invalid_amount`, and anything else that is malformed, the Idempotency-Key included,
is `invalid_account`, so that no client ever gets a code that the contract does not list. The message says what was
wrong. For GET the contract defines no code; a malformed query is `invalid_query`.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import QueryParams

RefusalCode = Literal["invalid_account", "invalid_amount", "insufficient_funds", "limit_exceeded"]

MAX_FILTER_VALUES = 100
KEY_LENGTHS = range(16, 65)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class BankResponse(NamedTuple):
    """A response before it is sent: HTTP status, JSON body, and headers other than the content type."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class ProblemError(Exception):
    """Ends a request with an error; `response` is what the client gets."""

    def __init__(self, response: BankResponse) -> None:
        super().__init__(response.body.decode())
        self.response = response


def problem_response(status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> BankResponse:
    """Return a response with the contract's Problem body {code, message}; `message` is a sentence."""
    return BankResponse(status, json.dumps({"code": code, "message": message}).encode(), headers)


def _whole_number(value: object) -> object:
    # JSON Schema accepts 5.0 as an integer; Python parses it as a float.
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Counterparty(BaseModel):
    """The payee. Account and routing numbers are kept out of repr and of every error message."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(min_length=1, max_length=35)]
    routing_number: Annotated[str, Field(pattern="^[0-9]{9}$", repr=False)]
    account_number: Annotated[str, Field(pattern="^[0-9]{4,17}$", repr=False)]
    account_type: Literal["checking", "savings"]


class TransferRequest(BaseModel):
    """The body of POST /v1/transfers, as strict as the contract's schema."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    method: Literal["ach", "wire"]
    amount_cents: Annotated[int, Field(ge=1, le=9_999_999_999), BeforeValidator(_whole_number)]
    currency: Literal["USD"]
    funding_account_id: str
    counterparty: Counterparty
    reference: Annotated[str, Field(max_length=35)]


def parse_transfer(body: bytes, content_type: str | None) -> TransferRequest:
    """Parse the body of POST /v1/transfers; raises ProblemError (422) with the first error."""
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(
            problem_response(422, "invalid_account", "The request's content type must be application/json.")
        )
    try:
        return TransferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        # An unknown field's name is the client's text and could be an account number, so it is never repeated.
        where = where[:-1]
    field = ".".join(where) or "body"
    code = "invalid_amount" if field in ("amount_cents", "currency") else "invalid_account"
    raise ProblemError(problem_response(422, code, f"The request's {field} is invalid: {first['msg']}."))


def parse_idempotency_key(header: str | None) -> str:
    """Check the Idempotency-Key header; raises ProblemError (422) unless it has 16 to 64 characters."""
    if header is None:
        raise ProblemError(problem_response(422, "invalid_account", "The Idempotency-Key header is missing."))
    if len(header) not in KEY_LENGTHS:
        message = "The Idempotency-Key header must have 16 to 64 characters."
        raise ProblemError(problem_response(422, "invalid_account", message))
    return header


def has_valid_check_digit(routing_number: str) -> bool:
    """Return whether a nine-digit routing number has a valid ABA check digit (weights 3, 7, 1)."""
    weighted = sum(int(digit) * weight for digit, weight in zip(routing_number, (3, 7, 1) * 3, strict=True))
    return weighted % 10 == 0


def format_timestamp(microseconds: int) -> str:
    """Return microseconds since 1970 as UTC ISO 8601, always with six decimals."""
    timestamp = EPOCH + timedelta(microseconds=microseconds)
    return timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> int:
    """Return an RFC 3339 date-time as microseconds since 1970; raises ValueError for anything else."""
    if not RFC_3339.fullmatch(text.upper()):
        raise ValueError("A timestamp must be an RFC 3339 date-time with an offset.")
    try:
        return (datetime.fromisoformat(text.upper()).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    except OverflowError as error:
        raise ValueError("A timestamp must be within the years 1 to 9999.") from error


class Filters(NamedTuple):
    """The filters of GET /v1/transfers; an empty tuple or None matches everything. Microseconds since 1970."""

    keys: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    updated_since: Annotated[int, Field(ge=-(2**62), le=2**62)] | None = None


class Position(NamedTuple):
    """The last transfer of a page; the next page continues after (updated_at in microseconds, id)."""

    updated_at: Annotated[int, Field(ge=-(2**62), le=2**62)]
    transfer_id: str


@dataclass(frozen=True)
class Search:
    """One request for a page of transfers."""

    filters: Filters
    after: Position | None = None


_CURSOR: TypeAdapter[tuple[Position, Filters]] = TypeAdapter(tuple[Position, Filters])


def encode_cursor(position: Position, filters: Filters) -> str:
    """Return the opaque next_cursor. It contains the filters, so the client may repeat them or leave them out."""
    return base64.urlsafe_b64encode(_CURSOR.dump_json((position, filters))).decode()


def parse_search(query: QueryParams) -> Search:
    """Parse the query of GET /v1/transfers; raises ProblemError (422, invalid_query) if it is malformed.

    Unknown parameters are refused: a misspelled filter would otherwise return every transfer.
    """
    if set(query) - {"idempotency_key", "reference", "updated_since", "cursor"}:
        raise _bad_query("The only parameters allowed are idempotency_key, reference, updated_since and cursor.")
    filters = Filters(
        keys=_values(query, "idempotency_key", MAX_FILTER_VALUES),
        references=_values(query, "reference", MAX_FILTER_VALUES),
        updated_since=_since(_values(query, "updated_since", 1)),
    )
    cursors = _values(query, "cursor", 1)
    if not cursors:
        return Search(filters)
    try:
        after, cursor_filters = _CURSOR.validate_json(base64.urlsafe_b64decode(cursors[0]))
    except ValueError as error:
        raise _bad_query("The cursor was not issued by this bank.") from error
    if filters not in (Filters(), cursor_filters):
        raise _bad_query("The cursor belongs to a search with other filters.")
    return Search(cursor_filters, after)


def _values(query: QueryParams, name: str, limit: int) -> tuple[str, ...]:
    values: Sequence[str] = query.getlist(name)
    if len(values) > limit:
        raise _bad_query(f"{name} may be given at most {limit} times, not {len(values)} times.")
    return tuple(values)


def _since(values: tuple[str, ...]) -> int | None:
    try:
        return parse_timestamp(values[0]) if values else None
    except ValueError as error:
        raise _bad_query("updated_since must be an RFC 3339 date-time with an offset.") from error


def _bad_query(message: str) -> ProblemError:
    return ProblemError(problem_response(422, "invalid_query", message))
