"""The normal responses of each recording server.

The internal API enforces its contract (docs/rules.md, section 8); PostHog accepts any capture; CloudFront has one page.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response

from seedtrust_ops.sandbox.external_services.recording_server import RecordedRequest, recording_app

PAGE = "<!doctype html><title>SeedTrust</title><p>The sandbox's CloudFront origin."


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
