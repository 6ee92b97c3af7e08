"""The control endpoints under /sandbox, and /healthz: tests and the demo inject faults and read the books with them.

They are not part of the contract and require no API key. Production code must never call them.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seedtrust_ops.sandbox.bank import admin_actions
from seedtrust_ops.sandbox.bank.contract import ProblemError, problem_response
from seedtrust_ops.sandbox.bank.faults import Chaos, Faults, InjectedFault
from seedtrust_ops.sandbox.bank.store import RequestJournal, Store

Model = TypeVar("Model", bound=BaseModel)


class _Control(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Return(_Control):
    """The body of a return: the ACH return code (R01, R02, ...)."""

    return_code: admin_actions.ReturnCode


class Reject(_Control):
    """The body of a rejection: the reason, as a sentence."""

    reason: Annotated[str, Field(min_length=1)]


class Clock(_Control):
    """The body of a clock change: how far the bank's clock is ahead of this machine's."""

    offset_seconds: Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]


class Backup(_Control):
    """The body of a backup: its name."""

    name: Annotated[str, Field(pattern="^[a-z0-9-]+$")]


class Funds(_Control):
    """What the funding account has from now on."""

    available_cents: Annotated[int, Field(ge=0, lt=2**62)]


class Misreport(_Control):
    """The fields that the bank reports wrongly for a reference, with any JSON value; none for the truth again."""

    fields: dict[str, JsonValue]


class ForgetKey(_Control):
    """The idempotency key that the bank is to lose."""

    idempotency_key: str


def control_routes(store: Store, faults: Faults, journal: RequestJournal) -> list[Route]:
    """Return the control endpoints of one bank."""

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def inject_fault(request: Request) -> JSONResponse:
        return JSONResponse({"number": faults.add(await _read(request, InjectedFault))}, 201)

    async def list_faults(_request: Request) -> JSONResponse:
        return JSONResponse(faults.overview())

    async def clear_faults(_request: Request) -> JSONResponse:
        faults.clear()
        admin_actions.end_misreports(store)
        return JSONResponse(faults.overview())

    async def start_chaos(request: Request) -> JSONResponse:
        faults.set_chaos(await _read(request, Chaos))
        return JSONResponse(faults.overview(), 201)

    async def insert_transfer(request: Request) -> JSONResponse:
        body = await _read(request, admin_actions.InsertedTransfer)
        return JSONResponse(admin_actions.insert_transfer(store, body), 201)

    async def return_transfer(request: Request) -> JSONResponse:
        body = await _read(request, Return)
        return JSONResponse(admin_actions.return_transfer(store, _transfer_id(store, request), body.return_code))

    async def reject_transfer(request: Request) -> JSONResponse:
        body = await _read(request, Reject)
        return JSONResponse(admin_actions.reject_transfer(store, _transfer_id(store, request), body.reason))

    async def dishonor_return(request: Request) -> JSONResponse:
        return JSONResponse(admin_actions.dishonor_return(store, _transfer_id(store, request)))

    async def misreport(request: Request) -> JSONResponse:
        body = await _read(request, Misreport)
        return JSONResponse(admin_actions.misreport(store, request.path_params["reference"], body.fields))

    async def set_available_cents(request: Request) -> JSONResponse:
        body = await _read(request, Funds)
        return JSONResponse(admin_actions.set_available_cents(store, body.available_cents))

    async def settle(_request: Request) -> JSONResponse:
        return JSONResponse({"settled": admin_actions.settle_all(store)})

    async def advance_clock(request: Request) -> JSONResponse:
        body = await _read(request, Clock)
        try:
            store.advance_clock(body.offset_seconds)
        except ValueError as error:
            raise ProblemError(problem_response(422, "invalid_control", str(error))) from error
        return JSONResponse({"offset_seconds": store.clock_offset_seconds})

    async def forget_key(request: Request) -> JSONResponse:
        body = await _read(request, ForgetKey)
        return JSONResponse(admin_actions.forget_key(store, body.idempotency_key))

    async def back_up(request: Request) -> JSONResponse:
        body = await _read(request, Backup)
        admin_actions.back_up(store, body.name)
        return JSONResponse({"backup": body.name}, 201)

    async def restore(request: Request) -> JSONResponse:
        name: str = request.path_params["name"]
        admin_actions.restore(store, name)
        return JSONResponse({"restored": name})

    def respond_with(result: Callable[[], object]) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def respond(_request: Request) -> JSONResponse:
            return JSONResponse(result())

        return respond

    return [
        Route("/healthz", healthz),
        Route("/sandbox/faults", inject_fault, methods=["POST"]),
        Route("/sandbox/faults", list_faults, methods=["GET"]),
        Route("/sandbox/faults", clear_faults, methods=["DELETE"]),
        Route("/sandbox/chaos", start_chaos, methods=["POST"]),
        Route("/sandbox/transfers", insert_transfer, methods=["POST"]),
        Route("/sandbox/transfers/{transfer_id}/return", return_transfer, methods=["POST"]),
        Route("/sandbox/transfers/{transfer_id}/reject", reject_transfer, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/return", return_transfer, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/reject", reject_transfer, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/dishonor", dishonor_return, methods=["POST"]),
        Route("/sandbox/references/{reference:path}/misreport", misreport, methods=["POST"]),
        Route("/sandbox/funds", set_available_cents, methods=["POST"]),
        Route("/sandbox/settle", settle, methods=["POST"]),
        Route("/sandbox/clock", advance_clock, methods=["POST"]),
        Route("/sandbox/forget-key", forget_key, methods=["POST"]),
        Route("/sandbox/backups", back_up, methods=["POST"]),
        Route("/sandbox/backups/{name}/restore", restore, methods=["POST"]),
        Route("/sandbox/ledger", respond_with(lambda: admin_actions.ledger_snapshot(store))),
        Route("/sandbox/requests", respond_with(lambda: {"requests": journal.entries()})),
        Route("/sandbox/totals", respond_with(lambda: admin_actions.totals(store))),
    ]


async def _read(request: Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ProblemError(problem_response(422, "invalid_control", f"{where}: {first['msg'].rstrip('.')}.")) from error


def _transfer_id(store: Store, request: Request) -> str:
    reference: str | None = request.path_params.get("reference")
    if reference is not None:
        return admin_actions.find_transfer_id(store, reference)
    return str(request.path_params["transfer_id"])
