"""Speaks `bank_api.yaml` with the Huntington transfer gateway over HTTP.

The only module that knows its paths and field names. It turns every way a request can end into an answer and
decides nothing; no account number and no body is ever put into a message.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Annotated, Any

import dagster as dg
import httpx
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from seedtrust_ops.bank import (
    LOOK_UP_PAGE,
    Answer,
    BankGaveNoAnswer,
    BankStatus,
    BankTransfer,
    BankUnauthorized,
    KeyReused,
    NotSent,
    Originated,
    OutcomeUnknown,
    RateLimited,
    Refused,
    TransferOrder,
    Unauthorized,
)
from seedtrust_ops.config import HuntingtonSettings, environment

CONNECT_RETRIES = 2
"""How often a connection that could not be made is tried again; nothing has left by then."""
DEFAULT_RETRY_AFTER_SECONDS = 1.0
"""How long a 429 without a readable Retry-After is waited for."""
QUESTION_TRIES = 3
"""How often a look-up is asked before it counts as unanswered; asking moves nothing."""
LONGEST_QUESTION_WAIT_SECONDS = 30.0
"""The longest Retry-After that a look-up waits for."""
LONGEST_WAIT_SECONDS = 3600.0
"""The longest Retry-After that is believed; after that the bank is asked again."""
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]+)?")
# Digits with as much between them as people write between the groups of an account number.
_DIGITS = re.compile(r"\d(?:[\W_]{0,2}\d){3,}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
Clean = Callable[[str], str]


class _WireTransfer(BaseModel):
    # What a database could not hold makes the answer unreadable here, not a failed commit later.
    id: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
    idempotency_key: str
    status: BankStatus
    amount_cents: Annotated[int, Field(ge=0, lt=2**63)]
    reference: str
    updated_at: AwareDatetime
    return_code: str | None = None
    reason: str | None = None

    def spoken(self, clean: "Clean") -> BankTransfer:
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


class _WirePage(BaseModel):
    data: list[_WireTransfer]
    next_cursor: str | None


class _WireProblem(BaseModel):
    code: str
    message: str = ""


class _Unanswered(Exception):
    """One try at a question got no readable answer."""


class HuntingtonBank:
    """The bank over a few HTTP connections; made by `open_huntington_bank`."""

    def __init__(self, connections: Sequence[httpx.AsyncClient], settings: HuntingtonSettings) -> None:
        """Take clients of one connection each: one pool of many looks every connection over at every request."""
        self._idle: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for connection in connections:
            self._idle.put_nowait(connection)
        self._url = settings.api_url
        self._timeout_seconds = settings.timeout_seconds
        self._api_key = settings.api_key

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[httpx.AsyncClient]:
        """Lend a connection for one request and its answer, all of it within the time that an answer may take.

        httpx's own timeouts start anew with every byte that drips in; this one does not.
        """
        connection = await self._idle.get()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield connection
        finally:
            self._idle.put_nowait(connection)

    async def create_transfer(self, order: TransferOrder) -> Answer:
        """Ask for one transfer, once. Only a request of which no byte has left counts as not sent."""
        left = False

        async def watch(event: str, _details: object) -> None:
            nonlocal left
            left = left or event.endswith("send_request_headers.started")

        try:
            async with self._exchange() as http:
                response = await http.post(
                    "/v1/transfers",
                    json=_body(order),
                    headers={"Idempotency-Key": order.idempotency_key},
                    extensions={"trace": watch},
                )
        except TimeoutError:
            reason = f"no answer within {self._timeout_seconds:g} seconds"
            return OutcomeUnknown(reason) if left else NotSent(f"no connection to {self._url}: {reason}")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason = f"the connection failed ({type(error).__name__})"
            return OutcomeUnknown(reason) if left else NotSent(f"no connection to {self._url}: {reason}")
        return _read_answer(order, response, self._clean)

    async def find_by_keys(self, keys: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these keys, at most 100 keys a call."""
        wanted = set(keys)
        if not wanted:
            return []
        pages = self._pages([("idempotency_key", key) for key in keys])
        return [one async for page in pages for one in page if one.idempotency_key in wanted]

    async def find_by_references(self, references: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these references, at most 100 references a call."""
        wanted = set(references)
        if not wanted:
            return []
        pages = self._pages([("reference", reference) for reference in references])
        return [one async for page in pages for one in page if one.reference in wanted]

    async def changed_since(self, moment: datetime) -> AsyncIterator[list[BankTransfer]]:
        """Yield pages of what changed since `moment`, oldest change first."""
        since = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        async for page in self._pages([("updated_since", since)]):
            yield page

    async def _pages(self, question: list[tuple[str, str]]) -> AsyncIterator[list[BankTransfer]]:
        if len(question) > LOOK_UP_PAGE:
            raise ValueError(f"the bank takes {LOOK_UP_PAGE} keys or references in one look-up, not {len(question)}")
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = await self._ask(question + ([("cursor", cursor)] if cursor else []))
            yield [one.spoken(self._clean) for one in page.data]
            cursor = page.next_cursor
            if not cursor:
                return
            if cursor in seen:
                raise BankGaveNoAnswer("The bank's pages go round in a circle: it gave the same cursor twice.")
            seen.add(cursor)

    async def _ask(self, parameters: list[tuple[str, str]]) -> _WirePage:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Unanswered),
                stop=stop_after_attempt(QUESTION_TRIES),
                wait=wait_exponential(multiplier=0.1, max=2),
                reraise=True,
            ):
                with attempt:
                    return await self._ask_once(parameters)
        except _Unanswered as silence:
            raise BankGaveNoAnswer(
                f"The bank at {self._url} gave no readable answer to a look-up: {silence}. Nothing moves "
                "by asking; it is asked again within a minute."
            ) from None
        raise AssertionError("unreachable: the last try returns or raises")

    async def _ask_once(self, parameters: list[tuple[str, str]]) -> _WirePage:
        try:
            async with self._exchange() as http:
                response = await http.get("/v1/transfers", params=httpx.QueryParams(tuple(parameters)))
        except TimeoutError:
            raise _Unanswered(f"no answer within {self._timeout_seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _Unanswered(f"the connection failed ({type(error).__name__})") from None
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise BankUnauthorized(
                "Huntington does not accept HUNTINGTON_API_KEY (401). Set the right key and restart."
            )
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            await asyncio.sleep(min(_retry_after_seconds(response), LONGEST_QUESTION_WAIT_SECONDS))
            raise _Unanswered("it asked to wait (429)")
        if response.status_code != httpx.codes.OK:
            raise _Unanswered(f"HTTP {response.status_code}")
        try:
            return _WirePage.model_validate_json(response.content)
        except ValidationError:
            raise _Unanswered("the answer could not be read") from None

    def _clean(self, text: str) -> str:
        """Return the bank's free text without what it may quote of our request: account numbers and our key."""
        return without_numbers(text.replace(self._api_key.get_secret_value(), "•••"))


class HuntingtonResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The Huntington transfer gateway, from the HUNTINGTON_* variables."""

    @property
    def settings(self) -> HuntingtonSettings:
        """How to reach the bank; raises `ConfigurationError` naming the variable that is missing."""
        return environment().huntington

    def open(self) -> AbstractAsyncContextManager[HuntingtonBank]:
        """Open a connection pool to the bank for the length of a block."""
        return open_huntington_bank(self.settings)


@asynccontextmanager
async def open_huntington_bank(settings: HuntingtonSettings) -> AsyncIterator[HuntingtonBank]:
    """Open a connection pool to the bank that `settings` names, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=settings.api_url,
                    headers={"Authorization": f"Bearer {settings.api_key.get_secret_value()}"},
                    timeout=settings.timeout_seconds,
                    transport=httpx.AsyncHTTPTransport(
                        verify=_certificates(), retries=CONNECT_RETRIES, limits=httpx.Limits(max_connections=1)
                    ),
                    trust_env=False,
                )
            )
            for _ in range(settings.concurrency)
        ]
        yield HuntingtonBank(connections, settings)


@cache
def _certificates() -> ssl.SSLContext:
    # Reading all certificates of the machine takes a tenth of a second: once a process is enough.
    return ssl.create_default_context()


def without_numbers(text: str) -> str:
    """Return the bank's free text with every run of four or more digits masked: it may quote an account number."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return _DIGITS.sub("••••", printable)


def _body(order: TransferOrder) -> dict[str, Any]:
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


def _read_answer(order: TransferOrder, response: httpx.Response, clean: Clean) -> Answer:
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.CREATED):
        return _read_transfer(order, response, clean)
    if status == httpx.codes.UNAUTHORIZED:
        return Unauthorized()
    if status == httpx.codes.CONFLICT:
        return KeyReused()
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimited(_retry_after_seconds(response))
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return _read_refusal(response, clean)
    return OutcomeUnknown(f"HTTP {status}")


def _read_transfer(order: TransferOrder, response: httpx.Response, clean: Clean) -> Answer:
    try:
        transfer = _WireTransfer.model_validate_json(response.content).spoken(clean)
    except ValidationError:
        return OutcomeUnknown("the answer could not be read")
    if transfer.idempotency_key != order.idempotency_key:
        return OutcomeUnknown("the answer was about another transfer")
    return Originated(transfer)


def _read_refusal(response: httpx.Response, clean: Clean) -> Answer:
    try:
        problem = _WireProblem.model_validate_json(response.content)
    except ValidationError:
        # A refusal is final by the contract, but one that can't be read may come from something in between.
        return OutcomeUnknown("HTTP 422 with an answer that could not be read")
    code = problem.code if _CODE.fullmatch(problem.code) and clean(problem.code) == problem.code else "refused"
    return Refused(code, clean(problem.message))


def _retry_after_seconds(response: httpx.Response) -> float:
    """Return Retry-After in seconds, given as a number or as an HTTP date (RFC 9110, 10.2.3)."""
    text = response.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return DEFAULT_RETRY_AFTER_SECONDS
    # Of the three forms of an HTTP date, one names no zone; all of them are in UTC.
    seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT_SECONDS)
