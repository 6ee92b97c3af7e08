"""The bank as an ASGI application: bank_api.yaml's endpoints, behind the key, the latency and the faults.

It holds no rule of the ledger and chooses no fault; it puts them together in the order in which a bank would.
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
    Answer,
    ProblemError,
    TransferRequest,
    problem,
    read_key,
    read_search,
    read_transfer,
)
from seedtrust_ops.sandbox.bank.control_routes import control_routes
from seedtrust_ops.sandbox.bank.faults import Fault, Faults, Incoming
from seedtrust_ops.sandbox.bank.faulty_responses import DoubledAnswer, DrippingAnswer, ResetAnswer, WholeAnswer
from seedtrust_ops.sandbox.bank.ledger import Ledger
from seedtrust_ops.sandbox.bank.request_journal import RequestJournal
from seedtrust_ops.sandbox.bank.store import Store

UNREADABLE = b'{"id": "tr_\xff\xfe, "status":'
STRANGER = {
    **{"id": "tr_of_a_stranger", "idempotency_key": "a-strangers-key-0001", "status": "completed", "method": "wire"},
    **{"return_code": None, "reason": None, "amount_cents": 1, "currency": "USD", "reference": "a stranger's"},
    **{"created_at": "2020-01-01T00:00:00.000000Z", "updated_at": "2020-01-01T00:00:00.000000Z"},
}
ANSWERS_TO_STRANGERS = {
    "POST": Answer(201, json.dumps(STRANGER).encode()),
    "GET": Answer(200, json.dumps({"data": [STRANGER], "next_cursor": None}).encode()),
}
"""What `answer_of_another` answers while nobody else has asked yet."""


class BankSettings(BaseModel):
    """What a bank is started with: money in cents, times in seconds, latency in milliseconds."""

    model_config = ConfigDict(frozen=True)

    database: Path
    api_key: str
    funding_account_id: str = "acct_escrow"
    available_cents: int = 100_000_000_000
    ach_settlement_seconds: float = 86_400
    latency_ms: float = 0
    page_size: int = 100


class Bank:
    """One bank: its books, its faults and its endpoints."""

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
        self._last_answers = dict(ANSWERS_TO_STRANGERS)
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
                HTTPException: self._unrouted,
                ProblemError: _stopped,
                ClientDisconnect: _hung_up,
                Exception: _broken,
            },
        )
        self.app.router.redirect_slashes = False

    async def _transfers(self, request: Request) -> Response:
        # One route for both, or a refused method would be told of the first one only.
        if request.method == "POST":
            return await self._create_transfer(request)
        return await self._find_transfers(request)

    async def _create_transfer(self, request: Request) -> Response:
        body, key_header = await request.body(), request.headers.get("idempotency-key")
        try:
            read: TransferRequest | ProblemError = read_transfer(body, request.headers.get("content-type"))
        except ProblemError as error:
            read = error
        incoming = Incoming(
            "POST",
            request.url.path,
            keys=(key_header,) if key_header is not None else (),
            references=(read.reference,) if isinstance(read, TransferRequest) else (),
            amount_cents=read.amount_cents if isinstance(read, TransferRequest) else None,
            can_be_refused=isinstance(read, TransferRequest) and not self._ledger.knows_key(key_header or ""),
        )

        def originate(fault: Fault | None) -> Answer:
            key = read_key(key_header)
            if isinstance(read, ProblemError):
                raise read
            refusal = fault.options.code if fault is not None and fault.kind == "refuse" else None
            return self._ledger.originate(key, read, refusal)

        return await self._serve(incoming, request, originate)

    async def _find_transfers(self, request: Request) -> Response:
        query = request.query_params
        incoming = Incoming(
            "GET",
            request.url.path,
            keys=tuple(query.getlist("idempotency_key")),
            references=tuple(query.getlist("reference")),
        )
        return await self._serve(incoming, request, lambda _: self._ledger.find(read_search(query)))

    async def _get_transfer(self, request: Request) -> Response:
        transfer_id: str = request.path_params["transfer_id"]
        incoming = Incoming("GET", request.url.path)
        return await self._serve(incoming, request, lambda _: self._ledger.transfer(transfer_id))

    async def _get_account(self, request: Request) -> Response:
        account_id: str = request.path_params["account_id"]
        incoming = Incoming("GET", request.url.path)
        return await self._serve(incoming, request, lambda _: self._ledger.account(account_id))

    async def _serve(
        self, incoming: Incoming, request: Request, answer_with: Callable[[Fault | None], Answer]
    ) -> Response:
        """Answer one request, through the fault that it meets; `answer_with` is where the ledger commits."""
        on_its_way_at = asyncio.get_running_loop().time() + self._half_latency
        authorized = self._is_authorized(request)
        fault = self._faults.choose(incoming) if authorized else None
        number = self._journal.received(incoming, request.url.query, fault)
        if not authorized:
            self._journal.answered(number, 401)
            return WholeAnswer(_unauthorized())
        # Half is the way in and half the way out, so that a kill can fall on either side of the commit.
        # Its own work is part of either, so that the latency is what a client meets.
        await _until(on_its_way_at)
        response, status = await self._answer(incoming.method, fault, answer_with)
        late_seconds = 0.0 if fault is None else asyncio.get_running_loop().time() - on_its_way_at
        await _until(on_its_way_at + late_seconds + self._half_latency)
        if status is not None:
            self._journal.answered(number, status)
        return response

    async def _answer(
        self, method: str, fault: Fault | None, answer_with: Callable[[Fault | None], Answer]
    ) -> tuple[Response, int | None]:
        instead = None if fault is None else _instead_of_commit(fault)
        if instead is not None:
            return WholeAnswer(instead), instead.status
        if fault is not None and fault.kind == "reset_before_commit":
            return ResetAnswer(), None
        if fault is not None and fault.kind == "answer_late_before_commit":
            await asyncio.sleep(fault.options.seconds)
        try:
            answer = answer_with(fault)
        except ProblemError as error:
            answer = error.answer
        before, self._last_answers[method] = self._last_answers[method], answer
        if fault is None:
            return WholeAnswer(answer), answer.status
        match fault.kind:
            case "reset_after_commit":
                return ResetAnswer(), None
            case "slow_drip":
                return DrippingAnswer(answer, fault.options.seconds), answer.status
            case "answer_late_after_commit":
                await asyncio.sleep(fault.options.seconds)
            case "error_after_commit":
                answer = _outage(fault)
            case "garbage":
                answer = answer._replace(body=UNREADABLE)
            case "answer_of_another":
                answer = before
            case "answered_twice":
                return DoubledAnswer(answer, before), answer.status
        return WholeAnswer(answer), answer.status

    def _is_authorized(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        return secrets.compare_digest(given, self._bearer)

    async def _unrouted(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/v1") and not self._is_authorized(request):
            return WholeAnswer(_unauthorized())
        code, message = {
            404: ("not_found", "There is nothing at this address."),
            405: ("method_not_allowed", "This address does not take this method."),
        }[error.status_code]
        return WholeAnswer(problem(error.status_code, code, message, tuple((error.headers or {}).items())))


async def _until(moment: float) -> None:
    seconds = moment - asyncio.get_running_loop().time()
    if seconds > 0:
        await asyncio.sleep(seconds)


def _instead_of_commit(fault: Fault) -> Answer | None:
    match fault.kind:
        case "rate_limited":
            return _too_many(fault)
        case "unauthorized":
            return _unauthorized()
        case "error_before_commit":
            return _outage(fault)
    return None


def _too_many(fault: Fault) -> Answer:
    given = fault.options.retry_after
    retry_after = str(math.ceil(fault.options.seconds)) if given is None else given
    headers = (("Retry-After", retry_after),) if retry_after else ()
    return problem(429, "rate_limited", "Too many requests. Try again later.", headers)


def _unauthorized() -> Answer:
    message = "The Authorization header does not hold a valid API key."
    return problem(401, "unauthorized", message, (("WWW-Authenticate", "Bearer"),))


def _outage(fault: Fault) -> Answer:
    return problem(fault.options.status, "unavailable", "The bank failed while it worked on this request.")


async def _stopped(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return WholeAnswer(error.answer)


async def _hung_up(_request: Request, _error: Exception) -> Response:
    # A client that died before its request was whole asked for nothing, and nobody is there to be answered.
    return Response()


async def _broken(_request: Request, _error: Exception) -> Response:
    # Starlette raises the error again after this answer, so that it is logged too.
    return WholeAnswer(problem(500, "internal_error", "The sandbox bank met an error of its own; see its log."))
