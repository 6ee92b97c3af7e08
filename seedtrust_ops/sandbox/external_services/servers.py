"""What a good answer is at each of the servers that keep their requests.

The internal API holds what is posted to its contract (design, section 8); PostHog takes any capture; CloudFront
serves one page.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, Response

from seedtrust_ops.sandbox.external_services.recording_server import Kept, keeping_app

PAGE = "<!doctype html><title>SeedTrust</title><p>The sandbox's CloudFront origin."


class PostedStatus(BaseModel):
    """The body of POST /status, to the letter; milliseconds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    component: Literal["s3", "cloudfront", "jobs"]
    status: Literal["up", "degraded", "down"]
    latency_ms: Annotated[int, Field(ge=0)] | None
    checked_at: Annotated[AwareDatetime, Field(strict=False)]
    detail: str


def cloudfront() -> Starlette:
    """Serve a page at every path."""
    return keeping_app(lambda _kept: HTMLResponse(PAGE), ["GET"])


def internal_api(api_key: str) -> Starlette:
    """Take POST /status under the key: 401 without it, 422 where the body is not the contract's."""

    def answer(kept: Kept) -> Response:
        if kept["headers"].get("x-internal-api-key") != api_key:
            return JSONResponse({"detail": "the key is not known"}, 401)
        if kept["path"] != "/status":
            return JSONResponse({"detail": "there is nothing here"}, 404)
        try:
            PostedStatus.model_validate(kept["body"])
        except ValidationError as error:
            return JSONResponse({"detail": error.errors(include_url=False, include_context=False)}, 422)
        return JSONResponse({"status": "taken"}, 201)

    return keeping_app(answer, ["POST"])


def posthog() -> Starlette:
    """Take whatever PostHog's client posts to /batch/ or /capture/."""

    def answer(kept: Kept) -> Response:
        return JSONResponse({"status": 1 if events_of(kept) else 0})

    return keeping_app(answer, ["GET", "POST"])


def events_of(kept: Kept) -> list[dict[str, Any]]:
    """Return the events in one request: a batch's, or the one."""
    body = kept["body"]
    if not isinstance(body, dict):
        return []
    batch = body.get("batch", [body] if "event" in body else [])
    return [event for event in batch if isinstance(event, dict)]
