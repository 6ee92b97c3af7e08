"""Speaks `bank_api.yaml` with the Huntington transfer gateway over HTTP.

It knows the paths, `huntington_wire` the field names. It turns every way a request can end into an answer and
decides nothing; no account number and no body is ever put into a message.
"""

import asyncio
import json
import logging
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
    TransferResponse,
    BankInquiryFailed,
    BankTransfer,
    BankUnauthorized,
    NotSent,
    Originated,
    OutcomeUnknown,
    TransferOrder,
)
from seedtrust_ops.resources.http1_connection import (
    BankConnection,
    HttpRequest,
    HttpResponse,
    RequestCanceled,
    NoResponse,
    RequestNotWritten,
)
from seedtrust_ops.resources.huntington_schema import (
    WirePage,
    to_request_body,
    parse_response,
    retry_after_seconds,
    mask_digits,
)

_logger = logging.getLogger(__name__)

TRANSFERS_PATH = "/v1/transfers"
LOOKUP_ATTEMPTS = 3
"""How often a look-up is asked before it counts as unanswered; asking moves nothing."""
MAX_LOOKUP_WAIT_SECONDS = 30.0
"""The longest Retry-After that a look-up waits for."""


class _LookupFailed(Exception):
    """One try at a question got no readable answer."""


class HuntingtonBank:
    """The bank over a few HTTP connections; made by `open_huntington_bank`."""

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
        """Lend a connection for one request and its answer."""
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            self._idle.put_nowait(connection)

    async def create_transfer(self, order: TransferOrder, may_leave: Callable[[], bool]) -> TransferResponse:
        """Ask for one transfer, once. Only a request of which no byte has left counts as not sent."""
        headers = (*self._headers, ("Idempotency-Key", order.idempotency_key), ("Content-Type", "application/json"))
        request = HttpRequest("POST", TRANSFERS_PATH, headers, json.dumps(to_request_body(order)).encode())
        try:
            async with self._connection() as connection:
                answer = parse_response(order, await connection.exchange(request, may_leave), self._clean)
                if not isinstance(answer, Originated):
                    # Only a transfer names its request. Said again late, anything else, a refusal above all, would be
                    # taken for the answer to the next one.
                    connection.close()
                return answer
        except RequestCanceled as trouble:
            return NotSent(str(trouble))
        except RequestNotWritten as trouble:
            return NotSent(f"no connection to {self._url}: {trouble}")
        except NoResponse as trouble:
            return OutcomeUnknown(str(trouble))

    async def find_by_keys(self, keys: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these keys, at most 100 keys a call."""
        return await self._found("idempotency_key", keys, lambda transfer: transfer.idempotency_key)

    async def find_by_references(self, references: Sequence[str]) -> list[BankTransfer]:
        """Return the transfers with these references, at most 100 references a call."""
        return await self._found("reference", references, lambda transfer: transfer.reference)

    async def _found(
        self, parameter: str, asked: Sequence[str], of: Callable[[BankTransfer], str]
    ) -> list[BankTransfer]:
        missing = set(asked)
        if not missing:
            return []
        answered = [one async for page in self._pages([(parameter, word) for word in asked]) for one in page]
        found = [one for one in answered if of(one) in missing]
        missing -= {of(one) for one in found}
        # What an answer to another question leaves out is not what the bank does not know.
        if missing and len(found) < len(answered):
            raise BankInquiryFailed(
                f"The bank at {self._url} answered a look-up with transfers that were not asked for and without some "
                "that were, so the answer may be somebody else's. Nothing moves by asking; it is asked again within a "
                "minute."
            )
        return found

    async def changed_since(self, moment: datetime) -> AsyncIterator[list[BankTransfer]]:
        """Yield pages of what changed since `read_clocks`, oldest change first."""
        since = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        async for page in self._pages([("updated_since", since)]):
            yield page

    async def _pages(self, question: list[tuple[str, str]]) -> AsyncIterator[list[BankTransfer]]:
        if len(question) > LOOKUP_PAGE_SIZE:
            raise ValueError(f"the bank takes {LOOKUP_PAGE_SIZE} keys or references in one look-up, not {len(question)}")
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            page = await self._ask(question + ([("cursor", cursor)] if cursor else []))
            yield [one.spoken(self._clean) for one in page.data]
            cursor = page.next_cursor
            if not cursor:
                return
            if cursor in seen:
                raise BankInquiryFailed("The bank's pages go round in a circle: it gave the same cursor twice.")
            seen.add(cursor)

    async def _ask(self, parameters: list[tuple[str, str]]) -> WirePage:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_LookupFailed),
                stop=stop_after_attempt(LOOKUP_ATTEMPTS),
                wait=wait_exponential(multiplier=0.1, max=2),
                reraise=True,
            ):
                with attempt:
                    return await self._ask_once(parameters)
        except _LookupFailed as silence:
            raise BankInquiryFailed(
                f"The bank at {self._url} gave no readable answer to a look-up: {silence}. Nothing moves "
                "by asking; it is asked again within a minute."
            ) from None
        raise AssertionError("unreachable: the last try returns or raises")

    async def _ask_once(self, parameters: list[tuple[str, str]]) -> WirePage:
        request = HttpRequest("GET", f"{TRANSFERS_PATH}?{urlencode(parameters)}", self._headers)
        try:
            async with self._connection() as connection:
                response = await connection.exchange(request)
                page = _parse_page(response)
                if page is None or not page.data:
                    # As above: it names nobody.
                    connection.close()
        except (RequestNotWritten, NoResponse) as trouble:
            raise _LookupFailed(str(trouble)) from None
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise BankUnauthorized(
                "Huntington does not accept HUNTINGTON_API_KEY (401). Set the right key and restart."
            )
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            await asyncio.sleep(min(retry_after_seconds(response), MAX_LOOKUP_WAIT_SECONDS))
            raise _LookupFailed("it asked to wait (429)")
        if response.status != HTTPStatus.OK:
            raise _LookupFailed(f"HTTP {response.status}")
        if page is None:
            raise _LookupFailed("the answer could not be read")
        return page

    def _clean(self, text: str) -> str:
        """Return the bank's free text without what it may quote of our request: account numbers and our key."""
        return mask_digits(text.replace(self._api_key.get_secret_value(), "•••"))


def _parse_page(response: HttpResponse) -> WirePage | None:
    """Return the page, None where it is none that can be read."""
    if response.status != HTTPStatus.OK:
        return None
    try:
        return WirePage.model_validate_json(response.content)
    except ValidationError:
        return None


@asynccontextmanager
async def open_huntington_bank(settings: HuntingtonSettings) -> AsyncIterator[HuntingtonBank]:
    """Open connections to the bank that `settings` names, for as long as the block lasts."""
    if settings.uses_plaintext:
        _warn_about_plain_http(settings.api_url)
    tls = _tls_context() if settings.api_url.startswith("https:") else None
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
def _warn_about_plain_http(url: str) -> None:
    _logger.warning(
        "HUNTINGTON_API_URL (%s) is plain http and not of this machine: account numbers and our key can be read on "
        "their way. Use https, except for a test bank.",
        url,
    )


@cache
def _tls_context() -> ssl.SSLContext:
    # Reading all certificates of the machine takes a tenth of a second: once a process is enough.
    return ssl.create_default_context()
