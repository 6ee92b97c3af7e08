"""What bank_api.yaml says a request must be, in code: bodies, headers, queries, cursors and their problems.

It decides nothing about money and keeps nothing: a request that is well formed may still be refused by the
ledger.

The contract closes the list of 422 codes for POST /v1/transfers and gives none for a malformed request. A
malformed amount or currency is therefore `invalid_amount`, and everything else that is malformed, the
Idempotency-Key included, is `invalid_account`: no client ever meets a code that the contract does not list.
The message says what was wrong. For GET the contract names no code, and a malformed query is `invalid_query`.
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

MOST_FILTER_VALUES = 100
KEY_LENGTHS = range(16, 65)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Answer(NamedTuple):
    """An answer before it is sent: HTTP status, JSON body, and headers beyond the content type."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class ProblemError(Exception):
    """Stops a request; `answer` is what its caller is told."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


def problem(status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """The contract's Problem body {code, message} as an answer; `message` is a sentence for people."""
    return Answer(status, json.dumps({"code": code, "message": message}).encode(), headers)


def _whole_number(value: object) -> object:
    # To JSON Schema 5.0 is an integer, to Python it is a float.
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Counterparty(BaseModel):
    """Who is paid. Account and routing number stay out of repr and of every error text."""

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


def read_transfer(body: bytes, content_type: str | None) -> TransferRequest:
    """Read the body of POST /v1/transfers; raises ProblemError (422) with the first thing that is wrong."""
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(problem(422, "invalid_account", "The request's content type must be application/json."))
    try:
        return TransferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        # An unknown field's name is the caller's text, and could be an account number: no answer repeats it.
        where = where[:-1]
    field = ".".join(where) or "body"
    code = "invalid_amount" if field in ("amount_cents", "currency") else "invalid_account"
    raise ProblemError(problem(422, code, f"The request's {field} breaks the contract: {first['msg']}."))


def read_key(header: str | None) -> str:
    """Read the Idempotency-Key header; raises ProblemError (422) unless it has 16 to 64 characters."""
    if header is None:
        raise ProblemError(problem(422, "invalid_account", "The Idempotency-Key header is missing."))
    if len(header) not in KEY_LENGTHS:
        message = "The Idempotency-Key header must have 16 to 64 characters."
        raise ProblemError(problem(422, "invalid_account", message))
    return header


def routing_number_is_real(routing_number: str) -> bool:
    """Whether nine digits bear the right ABA check digit (weights 3, 7, 1)."""
    weighted = sum(int(digit) * weight for digit, weight in zip(routing_number, (3, 7, 1) * 3, strict=True))
    return weighted % 10 == 0


def shown_moment(microseconds: int) -> str:
    """Microseconds since 1970 as UTC ISO 8601, always with six decimals."""
    moment = EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_moment(text: str) -> int:
    """An RFC 3339 date-time as microseconds since 1970; raises ValueError for anything else."""
    if not RFC_3339.fullmatch(text.upper()):
        raise ValueError("A moment must be an RFC 3339 date-time with an offset.")
    try:
        return (datetime.fromisoformat(text.upper()).astimezone(UTC) - EPOCH) // timedelta(microseconds=1)
    except OverflowError as error:
        raise ValueError("A moment must be within the years 1 to 9999.") from error


class Filters(NamedTuple):
    """What GET /v1/transfers looks for; an empty tuple or None for everything. Microseconds since 1970."""

    keys: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    updated_since: Annotated[int, Field(ge=-(2**62), le=2**62)] | None = None


class Position(NamedTuple):
    """The last transfer of a page: (updated_at in microseconds, id) is where the next page goes on."""

    updated_at: Annotated[int, Field(ge=-(2**62), le=2**62)]
    transfer_id: str


@dataclass(frozen=True)
class Search:
    """One request for a page of transfers."""

    filters: Filters
    after: Position | None = None


_CURSOR: TypeAdapter[tuple[Position, Filters]] = TypeAdapter(tuple[Position, Filters])


def cursor_after(position: Position, filters: Filters) -> str:
    """The opaque next_cursor: it holds the filters too, so that it works with them repeated and without."""
    return base64.urlsafe_b64encode(_CURSOR.dump_json((position, filters))).decode()


def read_search(query: QueryParams) -> Search:
    """Read the query of GET /v1/transfers; raises ProblemError (422, invalid_query) where it is malformed.

    Unknown parameters are refused too: a misspelt filter would otherwise answer with every transfer there is.
    """
    if set(query) - {"idempotency_key", "reference", "updated_since", "cursor"}:
        raise _bad_query("The only parameters are idempotency_key, reference, updated_since and cursor.")
    filters = Filters(
        keys=_values(query, "idempotency_key", MOST_FILTER_VALUES),
        references=_values(query, "reference", MOST_FILTER_VALUES),
        updated_since=_since(_values(query, "updated_since", 1)),
    )
    cursors = _values(query, "cursor", 1)
    if not cursors:
        return Search(filters)
    try:
        after, cursor_filters = _CURSOR.validate_json(base64.urlsafe_b64decode(cursors[0]))
    except ValueError as error:
        raise _bad_query("The cursor is not one that this bank gave out.") from error
    if filters not in (Filters(), cursor_filters):
        raise _bad_query("The cursor belongs to a search with other filters.")
    return Search(cursor_filters, after)


def _values(query: QueryParams, name: str, most: int) -> tuple[str, ...]:
    values: Sequence[str] = query.getlist(name)
    if len(values) > most:
        raise _bad_query(f"{name} may be given {most} times at most, not {len(values)} times.")
    return tuple(values)


def _since(values: tuple[str, ...]) -> int | None:
    try:
        return read_moment(values[0]) if values else None
    except ValueError as error:
        raise _bad_query("updated_since must be an RFC 3339 date-time with an offset.") from error


def _bad_query(message: str) -> ProblemError:
    return ProblemError(problem(422, "invalid_query", message))
