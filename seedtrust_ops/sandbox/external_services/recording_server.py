"""A server that keeps every request it gets, and answers as it was last told to: well, late, or with an error.

CloudFront, the internal API and PostHog are such servers; what a good answer is, each says itself.
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


class Kept(TypedDict):
    """One request as it came in; `body` is what its JSON says, None where it holds none; `status` was the answer."""

    at: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int


class Behaviour(BaseModel):
    """How the server answers from now on: as it should, or always with `status`; `seconds` late."""

    model_config = ConfigDict(extra="forbid")

    status: int | None = Field(default=None, ge=200, le=599)
    seconds: float = Field(default=0, ge=0, le=600)


Answer = Callable[[Kept], Response]


def keeping_app(answer: Answer, methods: list[Literal["GET", "POST"]]) -> Starlette:
    """Return the server's application: any path under any of `methods`, and the control endpoints under /sandbox."""
    kept: list[Kept] = []
    behaviour = Behaviour()

    async def take(request: Request) -> Response:
        one = Kept(
            at=datetime.now(UTC).isoformat(),
            method=request.method,
            path=request.url.path,
            headers=dict(request.headers),
            body=_body(await request.body(), request.headers.get("content-encoding", "")),
            status=0,
        )
        now = behaviour
        await asyncio.sleep(now.seconds)
        response = answer(one) if now.status is None else Response(status_code=now.status)
        one["status"] = response.status_code
        kept.append(one)
        return response

    async def show(_request: Request) -> Response:
        return JSONResponse(kept)

    async def forget(_request: Request) -> Response:
        nonlocal behaviour
        kept.clear()
        behaviour = Behaviour()
        return Response(status_code=204)

    async def behave(request: Request) -> Response:
        nonlocal behaviour
        behaviour = Behaviour.model_validate(await request.json())
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route(f"{CONTROL}/kept", show, methods=["GET"]),
            Route(f"{CONTROL}/kept", forget, methods=["DELETE"]),
            Route(f"{CONTROL}/behaviour", behave, methods=["PUT"]),
            Route("/{path:path}", take, methods=list(methods)),
        ]
    )


def _body(raw: bytes, encoding: str) -> Any:
    try:
        return json.loads(gzip.decompress(raw) if encoding == "gzip" else raw)
    except (ValueError, OSError, EOFError, zlib.error):
        return None
