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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from http import HTTPStatus
from typing import Literal, TypeVar
from urllib.parse import quote, urlencode

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.ports.bank import (
    LOOKUP_PAGE_SIZE,
    BankInquiryFailed,
    BankTransfer,
    BankTransfers,
    BankUnauthorized,
    FundingAccount,
    FundingAccountUnreadable,
    NotSent,
    Originated,
    OutcomeUnknown,
    TransferOrder,
    TransferResponse,
    UnreadableTransfer,
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
    UNPARSABLE,
    WirePage,
    mask_digits,
    parse_account,
    parse_page,
    parse_response,
    parse_transfer,
    retry_after_seconds,
    to_request_body,
)

TRANSFERS_PATH = "/v1/transfers"
ACCOUNTS_PATH = "/v1/accounts"
LOOKUP_ATTEMPTS = 3
"""How often a lookup is tried before it fails; a lookup moves no money."""
MAX_LOOKUP_WAIT_SECONDS = 30.0
"""The longest Retry-After that a lookup waits for, in seconds."""
MAX_PAGES_WITHOUT_NEWS = 100
"""After this many pages in a row without a transfer that was not on an earlier one, reading ends with an error."""
OTHER_TRANSFER = "The bank answered with another transfer than the one that was asked about."
_LookupField = Literal["idempotency_key", "reference"]
_Parsed = TypeVar("_Parsed")


class _LookupFailed(Exception):
    """One try of a lookup got no readable response."""


@dataclass(frozen=True)
class _NotFound:
    """The bank has no transfer with this id (404)."""


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

    async def find_by_keys(self, keys: Sequence[str]) -> BankTransfers:
        """Return the transfers with these idempotency keys, at most 100 keys per call."""
        return await self._look_up("idempotency_key", keys)

    async def find_by_references(self, references: Sequence[str]) -> BankTransfers:
        """Return the transfers with these references, at most 100 references per call."""
        return await self._look_up("reference", references)

    async def get_transfer(self, bank_transfer_id: str) -> BankTransfer | UnreadableTransfer | None:
        """Return the transfer with this id of the bank, or None if the bank knows none."""
        path = f"{TRANSFERS_PATH}/{quote(bank_transfer_id, safe='')}"
        transfer: BankTransfer | UnreadableTransfer | _NotFound = await self._get(path, self._parse_transfer)
        if isinstance(transfer, _NotFound):
            return None
        if isinstance(transfer, BankTransfer) and transfer.id != bank_transfer_id:
            return UnreadableTransfer(bank_transfer_id, None, None, OTHER_TRANSFER)
        return transfer

    async def get_account(self, account_id: str) -> FundingAccount:
        """Return the funding account with this id, only if the bank says in full what it has."""
        path = f"{ACCOUNTS_PATH}/{quote(account_id, safe='')}"
        account: FundingAccount | str = await self._get(path, partial(parse_account, account_id))
        if isinstance(account, str):
            raise FundingAccountUnreadable(
                f"Huntington does not say what funding account {account_id} has. {account} Nothing was sent."
            )
        return account

    async def _look_up(self, name: _LookupField, values: Sequence[str]) -> BankTransfers:
        """Return the transfers with these values; if one does not show which it has, ask about fewer to find out."""
        if not values:
            return BankTransfers()
        found, others = BankTransfers(), BankTransfers()
        async for page in self._pages([(name, value) for value in values]):
            for transfer in page.readable:
                (found if getattr(transfer, name) in values else others).readable.append(transfer)
            for unreadable in page.unreadable:
                (found if getattr(unreadable, name) in values else others).unreadable.append(unreadable)
        missing = set(values) - {getattr(one, name) for one in [*found.readable, *found.unreadable]}
        # Whatever names none of the values may be one of them that cannot be read. And if the response belongs to
        # another request, what it leaves out is not unknown to the bank.
        is_any_nameless = any(getattr(one, name) is None for one in others.unreadable)
        if not is_any_nameless and (not missing or others == BankTransfers()):
            return found
        if len(values) > 1:
            middle = len(values) // 2
            first, second = [await self._look_up(name, half) for half in (values[:middle], values[middle:])]
            return BankTransfers(first.readable + second.readable, first.unreadable + second.unreadable)
        nameless = others.unreadable or [UnreadableTransfer(None, None, None, OTHER_TRANSFER)]
        found.unreadable.extend(replace(one, **{name: values[0]}) for one in nameless)
        return found

    async def changed_since(self, moment: datetime) -> AsyncIterator[BankTransfers]:
        """Yield pages of the transfers that changed since `moment`, oldest change first."""
        since = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        async for page in self._pages([("updated_since", since)]):
            yield page

    async def _pages(self, parameters: list[tuple[str, str]]) -> AsyncIterator[BankTransfers]:
        if len(parameters) > LOOKUP_PAGE_SIZE:
            raise ValueError(
                f"the bank accepts {LOOKUP_PAGE_SIZE} keys or references in one lookup, not {len(parameters)}"
            )
        cursor: str | None = None
        seen_cursors: set[str] = set()
        seen_ids: set[str | None] = {None}
        pages_without_news = 0
        while True:
            query = urlencode(parameters + ([("cursor", cursor)] if cursor else []))
            page = await self._get(f"{TRANSFERS_PATH}?{query}", self._parse_page)
            yield page.transfers
            cursor = page.next_cursor
            if not cursor:
                return
            ids: set[str | None] = {one.id for one in page.transfers.readable}
            ids |= {one.bank_transfer_id for one in page.transfers.unreadable}
            pages_without_news = 0 if ids - seen_ids else pages_without_news + 1
            if cursor in seen_cursors or pages_without_news > MAX_PAGES_WITHOUT_NEWS:
                raise BankInquiryFailed(
                    "The bank's pages are circular: it returned the same cursor twice, or many pages without a new "
                    "transfer. No money moved; the lookup is repeated within a minute."
                )
            seen_cursors.add(cursor)
            seen_ids |= ids

    async def _get(self, path: str, parse: Callable[[HttpResponse], _Parsed | None]) -> _Parsed:
        """Return the parsed response; `parse` returns None for one that is not readable."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_LookupFailed),
                stop=stop_after_attempt(LOOKUP_ATTEMPTS),
                wait=wait_exponential(multiplier=0.1, max=2),
                reraise=True,
            ):
                with attempt:
                    return await self._get_once(path, parse)
        except _LookupFailed as error:
            raise BankInquiryFailed(
                f"The bank at {self._url} gave no readable response to a lookup: {error}. No money moved; the lookup "
                "is repeated automatically."
            ) from None
        raise AssertionError("unreachable: the last try returns or raises")

    async def _get_once(self, path: str, parse: Callable[[HttpResponse], _Parsed | None]) -> _Parsed:
        request = HttpRequest("GET", path, self._headers)
        try:
            async with self._connection() as connection:
                response = await connection.exchange(request)
                parsed = parse(response)
                if parsed is None or parsed == WirePage(BankTransfers(), None):
                    # As in `create_transfer`: nothing in it names its request.
                    connection.close()
        except (RequestNotWritten, NoResponse) as error:
            raise _LookupFailed(str(error)) from None
        if parsed is not None:
            return parsed
        if response.status == HTTPStatus.UNAUTHORIZED:
            raise BankUnauthorized("Huntington rejected HUNTINGTON_API_KEY (401). Set the right key and restart.")
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            await asyncio.sleep(min(retry_after_seconds(response), MAX_LOOKUP_WAIT_SECONDS))
            raise _LookupFailed("rate limited (429)")
        if response.status != HTTPStatus.OK:
            raise _LookupFailed(f"HTTP {response.status}")
        raise _LookupFailed(UNPARSABLE)

    def _parse_page(self, response: HttpResponse) -> WirePage | None:
        return parse_page(response, self._clean) if response.status == HTTPStatus.OK else None

    def _parse_transfer(self, response: HttpResponse) -> BankTransfer | UnreadableTransfer | _NotFound | None:
        if response.status == HTTPStatus.NOT_FOUND:
            return _NotFound()
        return parse_transfer(response, self._clean) if response.status == HTTPStatus.OK else None

    def _clean(self, text: str) -> str:
        """Mask what the bank's free text may quote from our request: account numbers and our API key."""
        return mask_digits(text.replace(self._api_key.get_secret_value(), "•••"))


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
