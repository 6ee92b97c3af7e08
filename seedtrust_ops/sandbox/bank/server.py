"""The bank as an ASGI application: the endpoints of bank_api.yaml with authentication, latency and injected faults.

The rules for money are in `ledger`, and `faults` chooses the faults.
"""

import asyncio
import json
import math
import secrets
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from seedtrust_ops.sandbox.bank.contract import (
    BankResponse,
    ProblemError,
    TransferRequest,
    parse_idempotency_key,
    parse_search,
    parse_transfer,
    problem_response,
)
from seedtrust_ops.sandbox.bank.control_routes import control_routes
from seedtrust_ops.sandbox.bank.faults import Fault, Faults, IncomingRequest
from seedtrust_ops.sandbox.bank.faulty_responses import DuplicateResponse, FullResponse, ResetResponse, SlowResponse
from seedtrust_ops.sandbox.bank.ledger import Ledger
from seedtrust_ops.sandbox.bank.store import RequestJournal, Store

UNREADABLE = b'{"id": "tr_\xff\xfe, "status":'
OTHER_TRANSFER = {
    **{"id": "tr_other_client", "idempotency_key": "other-client-key-0001", "status": "completed", "method": "wire"},
    **{"return_code": None, "reason": None, "amount_cents": 1, "currency": "USD", "reference": "other client"},
    **{"created_at": "2020-01-01T00:00:00.000000Z", "updated_at": "2020-01-01T00:00:00.000000Z"},
}
OTHER_RESPONSES = {
    "POST": BankResponse(201, json.dumps(OTHER_TRANSFER).encode()),
    "GET": BankResponse(200, json.dumps({"data": [OTHER_TRANSFER], "next_cursor": None}).encode()),
}
"""What `swapped_response` sends as long as there is no earlier response to swap with."""


class BankSettings(BaseModel):
    """The settings a bank starts with: money in cents, times in seconds, latency in milliseconds."""

    model_config = ConfigDict(frozen=True)

    database: Path
    api_key: str
    funding_account_id: str = "acct_escrow"
    available_cents: int = 100_000_000_000
    ach_settlement_seconds: float = 86_400
    latency_ms: float = 0
    page_size: int = 100


class Bank:
    """One bank: its ledger, its faults and its endpoints."""

    def __init__(self, settings: BankSettings) -> None:
        self._settings = settings
        self._store = Store(
            settings.database,
            opening_cents={settings.funding_account_id: settings.available_cents},
            ach_settlement_seconds=settings.ach_settlement_seconds,
        )
        self._ledger = Ledger(self._store, page_size=settings.page_size)
        self._faults = Faults()
        self._journal = RequestJournal(self._store)
        self._last_responses = dict(OTHER_RESPONSES)
        self._half_latency = settings.latency_ms / 2000
        self._bearer = f"Bearer {settings.api_key}".encode()
        self.app = Starlette(
            routes=[
                Route("/v1/transfers", self._transfers, methods=["POST", "GET"]),
                Route("/v1/transfers/{transfer_id}", self._get_transfer, methods=["GET"]),
                Route("/v1/accounts/{account_id}", self._get_account, methods=["GET"]),
                *control_routes(self._store, self._faults, self._journal),
            ],
            exception_handlers={
                HTTPException: self._handle_unrouted,
                ProblemError: _handle_problem,
                ClientDisconnect: _handle_disconnect,
                Exception: _handle_internal_error,
            },
        )
        self.app.router.redirect_slashes = False

    async def _transfers(self, request: Request) -> Response:
        # One route for both methods; with two, a 405 would list only the methods of the first.
        if request.method == "POST":
            return await self._create_transfer(request)
        return await self._find_transfers(request)

    async def _create_transfer(self, request: Request) -> Response:
        body, key_header = await request.body(), request.headers.get("idempotency-key")
        try:
            parsed: TransferRequest | ProblemError = parse_transfer(body, request.headers.get("content-type"))
        except ProblemError as error:
            parsed = error
        incoming = IncomingRequest(
            "POST",
            request.url.path,
            keys=(key_header,) if key_header is not None else (),
            references=(parsed.reference,) if isinstance(parsed, TransferRequest) else (),
            amount_cents=parsed.amount_cents if isinstance(parsed, TransferRequest) else None,
            can_be_refused=isinstance(parsed, TransferRequest) and not self._ledger.has_key(key_header or ""),
        )

        def originate(fault: Fault | None) -> BankResponse:
            key = parse_idempotency_key(key_header)
            if isinstance(parsed, ProblemError):
                raise parsed
            refusal = fault.options.code if fault is not None and fault.kind == "refuse" else None
            return self._ledger.originate(key, parsed, refusal)

        return await self._serve(incoming, request, originate)

    async def _find_transfers(self, request: Request) -> Response:
        query = request.query_params
        incoming = IncomingRequest(
            "GET",
            request.url.path,
            keys=tuple(query.getlist("idempotency_key")),
            references=tuple(query.getlist("reference")),
        )
        return await self._serve(incoming, request, lambda _: self._ledger.find(parse_search(query)))

    async def _get_transfer(self, request: Request) -> Response:
        transfer_id: str = request.path_params["transfer_id"]
        incoming = IncomingRequest("GET", request.url.path)
        return await self._serve(incoming, request, lambda _: self._ledger.transfer(transfer_id))

    async def _get_account(self, request: Request) -> Response:
        account_id: str = request.path_params["account_id"]
        incoming = IncomingRequest("GET", request.url.path)
        return await self._serve(incoming, request, lambda _: self._ledger.account(account_id))

    async def _serve(
        self, incoming: IncomingRequest, request: Request, handle: Callable[[Fault | None], BankResponse]
    ) -> Response:
        """Respond to one request and apply its fault, if any; the ledger commits inside `handle`."""
        due_at = asyncio.get_running_loop().time() + self._half_latency
        authorized = self._is_authorized(request)
        fault = self._faults.choose(incoming) if authorized else None
        number = self._journal.record_request(incoming, request.url.query, fault)
        if not authorized:
            self._journal.record_status(number, 401)
            return FullResponse(_unauthorized())
        # Half of the latency comes before the commit and half after, so that a kill can hit on either side of it.
        # Both halves include the bank's own work, so that a client sees exactly the configured latency.
        await _sleep_until(due_at)
        response, status = await self._respond(incoming.method, fault, handle)
        delay_seconds = 0.0 if fault is None else asyncio.get_running_loop().time() - due_at
        await _sleep_until(due_at + delay_seconds + self._half_latency)
        if status is not None:
            self._journal.record_status(number, status)
        return response

    async def _respond(
        self, method: str, fault: Fault | None, handle: Callable[[Fault | None], BankResponse]
    ) -> tuple[Response, int | None]:
        early = None if fault is None else _response_without_commit(fault)
        if early is not None:
            return FullResponse(early), early.status
        if fault is not None and fault.kind == "reset_before_commit":
            return ResetResponse(), None
        if fault is not None and fault.kind == "late_response_before_commit":
            await asyncio.sleep(fault.options.seconds)
        try:
            response = handle(fault)
        except ProblemError as error:
            response = error.response
        previous, self._last_responses[method] = self._last_responses[method], response
        if fault is None:
            return FullResponse(response), response.status
        match fault.kind:
            case "reset_after_commit":
                return ResetResponse(), None
            case "slow_drip":
                return SlowResponse(response, fault.options.seconds), response.status
            case "late_response_after_commit":
                await asyncio.sleep(fault.options.seconds)
            case "error_after_commit":
                response = _server_error(fault)
            case "garbage":
                response = response._replace(body=UNREADABLE)
            case "swapped_response":
                response = previous
            case "duplicate_response":
                return DuplicateResponse(response, previous), response.status
        return FullResponse(response), response.status

    def _is_authorized(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        return secrets.compare_digest(given, self._bearer)

    async def _handle_unrouted(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/v1") and not self._is_authorized(request):
            return FullResponse(_unauthorized())
        code, message = {
            404: ("not_found", "There is no such endpoint."),
            405: ("method_not_allowed", "This endpoint does not support this method."),
        }[error.status_code]
        return FullResponse(problem_response(error.status_code, code, message, tuple((error.headers or {}).items())))


async def _sleep_until(due_at: float) -> None:
    seconds = due_at - asyncio.get_running_loop().time()
    if seconds > 0:
        await asyncio.sleep(seconds)


def _response_without_commit(fault: Fault) -> BankResponse | None:
    """Return the response of a fault that keeps the request from reaching the ledger, None for any other fault."""
    match fault.kind:
        case "rate_limited":
            return _too_many_requests(fault)
        case "unauthorized":
            return _unauthorized()
        case "error_before_commit":
            return _server_error(fault)
        case "in_progress":
            return problem_response(409, "request_in_progress", "A request with this key is still being processed.")
        case "lagging_lookup":
            return BankResponse(200, b'{"data": [], "next_cursor": null}')
    return None


def _too_many_requests(fault: Fault) -> BankResponse:
    override = fault.options.retry_after
    retry_after = str(math.ceil(fault.options.seconds)) if override is None else override
    headers = (("Retry-After", retry_after),) if retry_after else ()
    return problem_response(429, "rate_limited", "Too many requests. Try again later.", headers)


def _unauthorized() -> BankResponse:
    message = "The Authorization header does not contain a valid API key."
    return problem_response(401, "unauthorized", message, (("WWW-Authenticate", "Bearer"),))


def _server_error(fault: Fault) -> BankResponse:
    return problem_response(fault.options.status, "unavailable", "The bank failed while processing this request.")


async def _handle_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return FullResponse(error.response)


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    # The client disconnected before its request was complete, so there is nothing to do and nobody to respond to.
    return Response()


async def _handle_internal_error(_request: Request, _error: Exception) -> Response:
    # Starlette raises the error again after this response, so that it is logged too.
    return FullResponse(
        problem_response(500, "internal_error", "The sandbox bank had an internal error. See its log for details.")
    )
