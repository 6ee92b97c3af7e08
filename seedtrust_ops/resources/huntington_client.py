"""The client of Huntington's transfer API (`bank_api.yaml`).

It maps every outcome of a request to a response of `ports/bank` and makes no decisions; the JSON is in
`huntington_schema`. Account numbers and bodies never appear in its messages.
See docs/decisions/bank-connection.md.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from urllib.parse import urlencode

from pydantic import ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.ports.bank import (
    LOOKUP_PAGE_SIZE,
    BankInquiryFailed,
    BankTransfer,
    BankUnauthorized,
    NotSent,
    Originated,
    OutcomeUnknown,
    TransferOrder,
    TransferResponse,
)
from seedtrust_ops.resources.http1_connection import (
    BankConnection,
    HttpRequest,
    HttpResponse,
    NoResponse,
    RequestCanceled,
    RequestNotWritten,
)
from seedtrust_ops.resources.huntington_schema import (
    WirePage,
    mask_digits,
    parse_response,
    retry_after_seconds,
    to_request_body,
)

TRANSFERS_PATH = "/v1/transfers"
LOOKUP_ATTEMPTS = 3
"""How often a lookup is tried before it fails; a lookup moves no money."""
MAX_LOOKUP_WAIT_SECONDS = 30.0
"""The longest Retry-After that a lookup waits for, in seconds."""


class _LookupFailed(Exception):
    """One try of a lookup got no readable response."""


class HuntingtonBank:
    """The bank, over a pool of HTTP connections; created by `open_huntington_bank`."""

    def __init__(self, connections: Sequence[BankConnection], settings: HuntingtonSettings) -> None:
        self._idle: asyncio.LifoQueue[BankConnection] = asyncio.LifoQueue()
        for connection in connections:
            self._idle.put_nowait(connection)
        self._url = settings.api_url
        self._headers = (
            ("Authorization", f"Bearer {settings.api_key.get_secret_value()}"),
            ("User-Agent", "seedtrust-ops"),
            ("Accept-Encoding", "identity"),
        )
        self._api_key = settings.api_key

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[BankConnection]:
        """Borrow a connection for one request and its response."""
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            self._idle.put_nowait(connection)

    async def create_transfer(self, order: TransferOrder, may_send: Callable[[], bool]) -> TransferResponse:
        """Request one transfer, once. Only a request of which no byte was sent counts as `NotSent`."""
        headers = (*self._headers, ("Idempotency-Key", order.idempotency_key), ("Content-Type", "application/json"))
        request = HttpRequest("POST", TRANSFERS_PATH, headers, json.dumps(to_request_body(order)).encode())
        try:
            async with self._connection() as connection:
                response = parse_response(order, await connection.exchange(request, may_send), self._clean)
                if not isinstance(response, Originated):
                    # Only a transfer names its request. If the bank repeated any other response late, above all a
                    # refusal, it would be mistaken for the response to the next request.
                    connection.close()
                return response
        except RequestCanceled as error:
            return NotSent(str(error))
        except RequestNotWritten as error:
            return NotSent(f"no connection to {self._url}: {error}")
        except NoResponse as error:
            return OutcomeUnknown(str(error))

    async def find_by_keys(self, keys: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these idempotency keys, at most 100 keys per call."""
        return await self._look_up("idempotency_key", keys, lambda transfer: transfer.idempotency_key)

    async def find_by_references(self, references: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these references, at most 100 references per call."""
        return await self._look_up("reference", references, lambda transfer: transfer.reference)

    async def _look_up(
        self, parameter: str, values: Sequence[str], value_of: Callable[[BankTransfer], str]
    ) -> list[BankTransfer]:
        missing = set(values)
        if not missing:
            return []
        received = [one async for page in self._pages([(parameter, value) for value in values]) for one in page]
        found = [one for one in received if value_of(one) in missing]
        missing -= {value_of(one) for one in found}
        # If the response belongs to another request, a transfer missing from it is not unknown to the bank.
        if missing and len(found) < len(received):
            raise BankInquiryFailed(
                f"A lookup at {self._url} returned transfers that were not requested and left out some that were, so "
                "the response may belong to another request. No money moved; the lookup is repeated within a minute."
            )
        return found

    async def changed_since(self, moment: datetime) -> AsyncIterator[list[BankTransfer]]:
        """Yield pages of the transfers that changed since `moment`, oldest change first."""
        since = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        async for page in self._pages([("updated_since", since)]):
            yield page

    async def _pages(self, parameters: list[tuple[str, str]]) -> AsyncIterator[list[BankTransfer]]:
        if len(parameters) > LOOKUP_PAGE_SIZE:
            raise ValueError(
                f"the bank accepts {LOOKUP_PAGE_SIZE} keys or references in one lookup, not {len(parameters)}"
            )
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = await self._get_page(parameters + ([("cursor", cursor)] if cursor else []))
            yield [one.to_bank_transfer(self._clean) for one in page.data]
            cursor = page.next_cursor
            if not cursor:
                return
            if cursor in seen:
                raise BankInquiryFailed(
                    "The bank's pages are circular: it returned the same cursor twice. "
                    "No money moved; the lookup is repeated within a minute."
                )
            seen.add(cursor)

    async def _get_page(self, parameters: list[tuple[str, str]]) -> WirePage:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_LookupFailed),
                stop=stop_after_attempt(LOOKUP_ATTEMPTS),
                wait=wait_exponential(multiplier=0.1, max=2),
                reraise=True,
            ):
                with attempt:
                    return await self._get_page_once(parameters)
        except _LookupFailed as error:
            raise BankInquiryFailed(
                f"The bank at {self._url} gave no readable response to a lookup: {error}. No money moved; the lookup "
                "is repeated within a minute."
            ) from None
        raise AssertionError("unreachable: the last try returns or raises")

    async def _get_page_once(self, parameters: list[tuple[str, str]]) -> WirePage:
        request = HttpRequest("GET", f"{TRANSFERS_PATH}?{urlencode(parameters)}", self._headers)
        try:
            async with self._connection() as connection:
                response = await connection.exchange(request)
                page = _parse_page(response)
                if page is None or not page.data:
                    # As in `create_transfer`: nothing in it names its request.
                    connection.close()
        except (RequestNotWritten, NoResponse) as error:
            raise _LookupFailed(str(error)) from None
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise BankUnauthorized("Huntington rejected HUNTINGTON_API_KEY (401). Set the right key and restart.")
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            await asyncio.sleep(min(retry_after_seconds(response), MAX_LOOKUP_WAIT_SECONDS))
            raise _LookupFailed("rate limited (429)")
        if response.status != HTTPStatus.OK:
            raise _LookupFailed(f"HTTP {response.status}")
        if page is None:
            raise _LookupFailed("the response could not be parsed")
        return page

    def _clean(self, text: str) -> str:
        """Mask what the bank's free text may quote from our request: account numbers and our API key."""
        return mask_digits(text.replace(self._api_key.get_secret_value(), "•••"))


def _parse_page(response: HttpResponse) -> WirePage | None:
    """Return the parsed page, or None if the response is not a readable page."""
    if response.status != HTTPStatus.OK:
        return None
    try:
        return WirePage.model_validate_json(response.content)
    except ValidationError:
        return None


@asynccontextmanager
async def open_huntington_bank(settings: HuntingtonSettings) -> AsyncIterator[HuntingtonBank]:
    """Open connections to the bank in `settings`; they are closed when the block ends."""
    tls = _tls_context(ssl.get_default_verify_paths()) if settings.api_url.startswith("https:") else None
    connections = [
        BankConnection(settings.api_url, tls, timeout_seconds=settings.timeout_seconds)
        for _ in range(settings.concurrency)
    ]
    try:
        yield HuntingtonBank(connections, settings)
    finally:
        for connection in connections:
            connection.close()


@cache
def _tls_context(_certificates: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    # Loading the system's certificates takes a tenth of a second, so it is done once for each place they are in.
    return ssl.create_default_context()
