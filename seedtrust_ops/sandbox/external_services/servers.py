"""CloudFront's origin, the internal API and PostHog: servers that record every request and respond as configured.

They respond normally, late, or with an error. The internal API enforces its contract (docs/rules.md, section 8);
PostHog accepts any capture; CloudFront has one page. S3 is moto, which `__main__` runs.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

CONTROL = "/sandbox"
PAGE = "<!doctype html><title>SeedTrust</title><p>The sandbox's CloudFront origin."


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


class PostedStatus(BaseModel):
    """The body of POST /status, exactly as in the contract; `latency_ms` is in milliseconds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component: Literal["s3", "cloudfront", "jobs"]
    status: Literal["up", "degraded", "down"]
    latency_ms: Annotated[int, Field(ge=0)] | None
    checked_at: Annotated[AwareDatetime, Field(strict=False)]
    detail: str


def cloudfront() -> Starlette:
    """Return an app that serves one page at every path."""
    return recording_app(lambda _request: HTMLResponse(PAGE), ["GET"])


def internal_api(api_key: str) -> Starlette:
    """Return an app that accepts POST /status: 401 without the key, 422 if the body breaks the contract."""

    def respond(request: RecordedRequest) -> Response:
        if request["headers"].get("x-internal-api-key") != api_key:
            return JSONResponse({"detail": "The API key is not valid."}, 401)
        if request["path"] != "/status":
            return JSONResponse({"detail": "Not found."}, 404)
        try:
            PostedStatus.model_validate(request["body"])
        except ValidationError as error:
            return JSONResponse({"detail": error.errors(include_url=False, include_context=False)}, 422)
        return JSONResponse({"status": "accepted"}, 201)

    return recording_app(respond, ["POST"])


def posthog() -> Starlette:
    """Return an app that accepts whatever PostHog's client posts to /batch/ or /capture/."""

    def respond(request: RecordedRequest) -> Response:
        return JSONResponse({"status": 1 if captured_events(request) else 0})

    return recording_app(respond, ["GET", "POST"])


def captured_events(request: RecordedRequest) -> list[dict[str, Any]]:
    """Return the events in one request, whether it carries a batch or a single event."""
    body = request["body"]
    if not isinstance(body, dict):
        return []
    batch = body.get("batch", [body] if "event" in body else [])
    return [event for event in batch if isinstance(event, dict)]
