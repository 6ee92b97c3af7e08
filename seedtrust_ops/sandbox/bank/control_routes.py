"""The endpoints under /sandbox, and /healthz: how tests and the demo arrange a bank's day and see it.

They are no part of the contract and ask for no key. Client code that production runs must never call them.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seedtrust_ops.sandbox.bank import admin_actions, backups
from seedtrust_ops.sandbox.bank.contract import ProblemError, problem
from seedtrust_ops.sandbox.bank.faults import Chaos, FaultOrder, Faults
from seedtrust_ops.sandbox.bank.request_journal import RequestJournal
from seedtrust_ops.sandbox.bank.store import Store

Model = TypeVar("Model", bound=BaseModel)


class _Control(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Return(_Control):
    """Why an ACH comes back: R01, R02, ..."""

    return_code: admin_actions.ReturnCode


class Reject(_Control):
    """Why the bank stops a transfer, as a sentence."""

    reason: Annotated[str, Field(min_length=1)]


class Clock(_Control):
    """How far the bank's clock is ahead of this machine's."""

    offset_seconds: Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]


class Backup(_Control):
    """What a copy of the books is called."""

    name: Annotated[str, Field(pattern="^[a-z0-9-]+$")]


class Forget(_Control):
    """The key that the bank loses."""

    idempotency_key: str


def control_routes(store: Store, faults: Faults, journal: RequestJournal) -> list[Route]:
    """The control endpoints of one bank."""

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def order_fault(request: Request) -> JSONResponse:
        return JSONResponse({"number": faults.order(await _read(request, FaultOrder))}, 201)

    async def show_faults(_request: Request) -> JSONResponse:
        return JSONResponse(faults.overview())

    async def clear_faults(_request: Request) -> JSONResponse:
        faults.clear()
        return JSONResponse(faults.overview())

    async def start_chaos(request: Request) -> JSONResponse:
        faults.reign(await _read(request, Chaos))
        return JSONResponse(faults.overview(), 201)

    async def plant(request: Request) -> JSONResponse:
        return JSONResponse(admin_actions.plant(store, await _read(request, admin_actions.PlantedTransfer)), 201)

    async def send_back(request: Request) -> JSONResponse:
        wanted = await _read(request, Return)
        return JSONResponse(admin_actions.send_back(store, _transfer_id(store, request), wanted.return_code))

    async def reject(request: Request) -> JSONResponse:
        wanted = await _read(request, Reject)
        return JSONResponse(admin_actions.reject(store, _transfer_id(store, request), wanted.reason))

    async def settle(_request: Request) -> JSONResponse:
        return JSONResponse({"settled": admin_actions.settle_all(store)})

    async def move_clock(request: Request) -> JSONResponse:
        wanted = await _read(request, Clock)
        try:
            store.advance_clock(wanted.offset_seconds)
        except ValueError as error:
            raise ProblemError(problem(422, "invalid_control", str(error))) from error
        return JSONResponse({"offset_seconds": store.clock_offset_seconds})

    async def forget(request: Request) -> JSONResponse:
        wanted = await _read(request, Forget)
        return JSONResponse(admin_actions.forget_key(store, wanted.idempotency_key))

    async def back_up(request: Request) -> JSONResponse:
        wanted = await _read(request, Backup)
        backups.back_up(store, wanted.name)
        return JSONResponse({"kept": wanted.name}, 201)

    async def restore(request: Request) -> JSONResponse:
        name: str = request.path_params["name"]
        backups.restore(store, name)
        return JSONResponse({"restored": name})

    def shows(what: Callable[[], object]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def show(_request: Request) -> JSONResponse:
            return JSONResponse(what())

        return show

    return [
        Route("/healthz", healthz),
        Route("/sandbox/faults", order_fault, methods=["POST"]),
        Route("/sandbox/faults", show_faults, methods=["GET"]),
        Route("/sandbox/faults", clear_faults, methods=["DELETE"]),
        Route("/sandbox/chaos", start_chaos, methods=["POST"]),
        Route("/sandbox/transfers", plant, methods=["POST"]),
        Route("/sandbox/transfers/{transfer_id}/return", send_back, methods=["POST"]),
        Route("/sandbox/transfers/{transfer_id}/reject", reject, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/return", send_back, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/reject", reject, methods=["POST"]),
        Route("/sandbox/settle", settle, methods=["POST"]),
        Route("/sandbox/clock", move_clock, methods=["POST"]),
        Route("/sandbox/forget", forget, methods=["POST"]),
        Route("/sandbox/backups", back_up, methods=["POST"]),
        Route("/sandbox/backups/{name}/restore", restore, methods=["POST"]),
        Route("/sandbox/ledger", shows(lambda: admin_actions.books(store))),
        Route("/sandbox/requests", shows(lambda: {"requests": journal.shown()})),
        Route("/sandbox/totals", shows(lambda: admin_actions.totals(store))),
    ]


async def _read(request: Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ProblemError(problem(422, "invalid_control", f"{where}: {first['msg'].rstrip('.')}.")) from error


def _transfer_id(store: Store, request: Request) -> str:
    reference: str | None = request.path_params.get("reference")
    if reference is not None:
        return admin_actions.transfer_with_reference(store, reference)
    return str(request.path_params["transfer_id"])
