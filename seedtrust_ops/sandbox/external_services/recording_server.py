"""A server that records every request and responds normally, late, or with an error, as configured.

CloudFront, the internal API and PostHog are built on it; their normal responses are in `servers`.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CONTROL = "/sandbox"


class RecordedRequest(TypedDict):
    """One request as received; `body` is its parsed JSON or None, `status` is the response status."""

    at: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int


class ResponseOverride(BaseModel):
    """How the server responds from now on: `status` None for the normal response, `seconds` is the delay."""

    model_config = ConfigDict(extra="forbid")

    status: int | None = Field(default=None, ge=200, le=599)
    seconds: float = Field(default=0, ge=0, le=600)


Responder = Callable[[RecordedRequest], Response]


def recording_app(respond: Responder, methods: list[Literal["GET", "POST"]]) -> Starlette:
    """Return the server's app: any path with any of `methods`, and the control endpoints under /sandbox."""
    recorded: list[RecordedRequest] = []
    override = ResponseOverride()

    async def handle(request: Request) -> Response:
        record = RecordedRequest(
            at=datetime.now(UTC).isoformat(),
            method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            body=_body(await request.body(), request.headers.get("content-encoding", "")),
            status=0,
        )
        current = override
        await asyncio.sleep(current.seconds)
        response = respond(record) if current.status is None else Response(status_code=current.status)
        record["status"] = response.status_code
        recorded.append(record)
        return response

    async def list_requests(_request: Request) -> Response:
        return JSONResponse(recorded)

    async def reset(_request: Request) -> Response:
        nonlocal override
        recorded.clear()
        override = ResponseOverride()
        return Response(status_code=204)

    async def set_override(request: Request) -> Response:
        nonlocal override
        override = ResponseOverride.model_validate(await request.json())
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route(f"{CONTROL}/requests", list_requests, methods=["GET"]),
            Route(f"{CONTROL}/requests", reset, methods=["DELETE"]),
            Route(f"{CONTROL}/response-override", set_override, methods=["PUT"]),
            Route("/{path:path}", handle, methods=list(methods)),
        ]
    )


def _body(raw: bytes, encoding: str) -> Any:
    try:
        return json.loads(gzip.decompress(raw) if encoding == "gzip" else raw)
    except (ValueError, OSError, EOFError, zlib.error):
        return None
