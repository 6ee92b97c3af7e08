"""Answers that leave a connection as a failing network would: cut off with a reset, or drop by drop.

They need the socket under the HTTP server, which BankProtocol hands to each request. What an answer says is
not decided here.
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

from seedtrust_ops.sandbox.bank.contract import Answer


class BankProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, with its transport in every request's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep what the server does with a new connection, and let its requests reach the transport."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class WholeAnswer(Response):
    """An answer as it should be sent."""

    media_type = "application/json"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body, answer.status, dict(answer.headers))


class DoubledAnswer(WholeAnswer):
    """An answer as it should be sent, and behind it one that nobody asked for, on a connection that stays open."""

    def __init__(self, answer: Answer, unasked: Answer) -> None:
        super().__init__(answer)
        self._unasked = unasked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send both, on Linux in one go: no client can then ask again between the two."""
        transport = _transport(scope)
        _cork(transport, held=True)
        await super().__call__(scope, receive, send)
        transport.write(_as_http(self._unasked, connection="keep-alive"))
        _cork(transport, held=False)


class ResetAnswer(Response):
    """No answer: the client's socket fails with 'connection reset by peer'."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut the connection off."""
        transport = _transport(scope)
        # Closing with a linger time of zero makes the kernel send RST where it would have sent FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _connection_lost(receive)


class DrippingAnswer(Response):
    """The whole answer, headers included, one byte at a time with `pause_seconds` after each."""

    def __init__(self, answer: Answer, pause_seconds: float) -> None:
        super().__init__()
        self._answer = answer
        self._pause_seconds = pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Drip until all is sent or the client has hung up."""
        transport = _transport(scope)
        lost = asyncio.create_task(_connection_lost(receive))
        for byte in _as_http(self._answer, connection="close"):
            transport.write(bytes((byte,)))
            await asyncio.wait([lost], timeout=self._pause_seconds)
            if lost.done():
                return
        transport.close()
        await lost


def _transport(scope: Scope) -> asyncio.Transport:
    state = cast(dict[str, Any], scope["state"])
    return cast(asyncio.Transport, state["transport"])


def _cork(transport: asyncio.Transport, *, held: bool) -> None:
    if sys.platform == "linux":
        # tcp(7): what is written stays until it is let go, for at most 200 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, held)


async def _connection_lost(receive: Receive) -> None:
    # To the HTTP server an app that ends without an answer is broken, unless the client is gone by then.
    while (await receive())["type"] != "http.disconnect":
        pass


def _as_http(answer: Answer, *, connection: str) -> bytes:
    headers = (
        ("content-type", "application/json"),
        ("content-length", str(len(answer.body))),
        ("connection", connection),
        *answer.headers,
    )
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        *(": ".join(pair) for pair in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body
