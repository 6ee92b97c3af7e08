"""Responses that behave like a failing network: a connection reset, a response sent byte by byte, or one sent twice.

They need the socket under the HTTP server, which BankProtocol passes to each request. The content of the response is
decided in `server` and `ledger`.
"""

import asyncio
import socket
import struct
import sys
from http import HTTPStatus
from typing import Any, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from seedtrust_ops.sandbox.bank.contract import BankResponse


class BankProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol with the transport added to every request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Set up the connection as uvicorn does, and give its requests access to the transport."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class FullResponse(Response):
    """A normal response."""

    media_type = "application/json"

    def __init__(self, response: BankResponse) -> None:
        super().__init__(response.body, response.status, dict(response.headers))


class DuplicateResponse(FullResponse):
    """A normal response followed by an unrequested second one, on a connection that stays open."""

    def __init__(self, response: BankResponse, unrequested: BankResponse) -> None:
        super().__init__(response)
        self._unrequested = unrequested

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send both; on Linux in one packet, so that the client cannot send a request in between."""
        transport = _transport(scope)
        _cork(transport, enabled=True)
        await super().__call__(scope, receive, send)
        transport.write(_http_bytes(self._unrequested, connection="keep-alive"))
        _cork(transport, enabled=False)


class ResetResponse(Response):
    """No response: the client's socket fails with 'connection reset by peer'."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reset the connection."""
        transport = _transport(scope)
        # Closing with a linger time of zero makes the kernel send RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _connection_lost(receive)


class SlowResponse(Response):
    """A complete response, headers included, sent one byte at a time with `pause_seconds` after each."""

    def __init__(self, response: BankResponse, pause_seconds: float) -> None:
        super().__init__()
        self._response = response
        self._pause_seconds = pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send byte by byte until everything is sent or the client has disconnected."""
        transport = _transport(scope)
        lost = asyncio.create_task(_connection_lost(receive))
        for byte in _http_bytes(self._response, connection="close"):
            transport.write(bytes((byte,)))
            await asyncio.wait([lost], timeout=self._pause_seconds)
            if lost.done():
                return
        transport.close()
        await lost


def _transport(scope: Scope) -> asyncio.Transport:
    state = cast(dict[str, Any], scope["state"])
    return cast(asyncio.Transport, state["transport"])


def _cork(transport: asyncio.Transport, *, enabled: bool) -> None:
    if sys.platform == "linux":
        # tcp(7): while the socket is corked, the kernel holds what is written, for at most 200 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, enabled)


async def _connection_lost(receive: Receive) -> None:
    # uvicorn treats an app that ends without a response as broken, unless the client has disconnected by then.
    while (await receive())["type"] != "http.disconnect":
        pass


def _http_bytes(response: BankResponse, *, connection: str) -> bytes:
    headers = (
        ("content-type", "application/json"),
        ("content-length", str(len(response.body))),
        ("connection", connection),
        *response.headers,
    )
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        *(": ".join(pair) for pair in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + response.body
