"""Refuses the requests that a page of another site can make a browser send to the Dagster UI.

Dagster's application has no login and checks none of this: it runs the query of any form, link or socket. This is not
a login either; a proxy in front of it decides who may use the UI. See docs/security.md and
docs/decisions/web-server.md.
"""

import logging
import re
from collections.abc import Collection
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seedtrust_ops.formatting import strip_control_chars

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
GRAPHQL = "/graphql"
CLOSED = ("/report_asset_", "/notebook", "/dagit")
"""Starts of Dagster's other paths: events of assets that none of our jobs made, notebooks, and old names."""
FILES = {
    "/logs/": re.compile(r"/logs(/\w[\w.-]*){2,}", re.ASCII),
    "/download_debug/": re.compile(r"/download_debug/[0-9a-f-]{36}"),
}
"""What paths of files look like. Dagster answers others, such as those that leave its folder, with a server error."""
RESPONSE_HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""No other page may show the UI in a frame, where it could make people click, or embed what it downloads."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(:\d+)?", re.IGNORECASE)

_logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """The HTTP status and the sentence of a refused request."""

    status: int
    message: str


class RequestGuard:
    """ASGI middleware: passes requests on to `app`, or answers them with the `Refusal` as a GraphQL error."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """Create it; `hosts` are the names of this server, in lower case, besides loopback and its own address."""
        self._app = app
        self._hosts = LOOPBACK_HOSTS.union(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *RESPONSE_HEADERS]
            await send(message)

        refusal = find_refusal(scope, self._hosts)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        request = f"{scope.get('method', 'WebSocket')} {scope['path']}"
        _logger.warning("Refused %s (%d): %s", strip_control_chars(request), refusal.status, refusal.message)
        response = JSONResponse({"errors": [{"message": refusal.message}]}, refusal.status)
        await response(scope, receive, send_with_headers)


def find_refusal(scope: Scope, hosts: Collection[str]) -> Refusal | None:
    """Return why the server must not answer an HTTP request or a WebSocket's handshake; None if it may.

    Args:
        scope: the ASGI scope of type `http` or `websocket`.
        hosts: the names of this server, in lower case. The address at which it was reached counts too.
    """
    headers = Headers(scope=scope)
    host = ", ".join(headers.getlist("host")).lower()
    if not _is_own_host(host, scope, hosts):
        # Otherwise a page could point a name of its own at this server, and then read and send as if it were ours.
        return Refusal(
            400,
            f"This server does not answer requests for the host {strip_control_chars(host)!r}. If that is its name, "
            "add it to SEEDTRUST_WEB_HOSTS.",
        )
    if scope["type"] == "websocket":
        return _check_origin(headers, host)
    path = scope["path"]
    if path.startswith(CLOSED):
        return Refusal(404, "This server does not offer this path of Dagster's web server.")
    if any(path.startswith(start) and not form.fullmatch(path) for start, form in FILES.items()):
        return Refusal(404, "There is no such file.")
    if scope["method"] in ("GET", "HEAD"):
        # People follow links from emails to the UI, so a page may come from anywhere, but it may not do anything.
        return Refusal(400, "Send GraphQL requests by POST, not in a URL.") if path == GRAPHQL else None
    return _check_origin(headers, host) or _check_site(headers) or _check_media_type(headers)


def _is_own_host(host: str, scope: Scope, hosts: Collection[str]) -> bool:
    match = _HOST.fullmatch(host)
    server = scope.get("server")
    return match is not None and (match[1] in hosts or (server is not None and match[1].strip("[]") == server[0]))


def _check_origin(headers: Headers, host: str) -> Refusal | None:
    """Refuse pages of another origin. Programs send no origin; browsers do, and a page cannot change it."""
    origin = headers.get("origin")
    if origin is None or origin.partition("://")[2].lower() == host:
        return None
    return Refusal(
        403,
        f"Pages of {strip_control_chars(origin)!r} may not send requests to {host!r}. If it is the server's own page, "
        "the proxy must pass on the headers Host and Origin unchanged.",
    )


def _check_site(headers: Headers) -> Refusal | None:
    """Refuse what the browser itself calls foreign: the origin does not tell http from https behind a proxy."""
    if headers.get("sec-fetch-site", "same-origin") == "same-origin":
        return None
    return Refusal(403, "Pages of another site may not send requests to this server.")


def _check_media_type(headers: Headers) -> Refusal | None:
    """Refuse all but JSON: browsers ask the server before they send JSON for another site, and it agrees to nothing."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        return None
    return Refusal(415, "Send requests as JSON, with the header `Content-Type: application/json`.")
