"""One HTTP/1.1 connection to the bank that knows, to the byte, whether a request was sent.

It uses h11 for messages and asyncio for sockets and TLS. It never redirects, retries a request, or uses cookies or
proxies. Paths and the meaning of responses are in `huntington_client`.
See docs/decisions/bank-connection.md.
"""

import asyncio
import select
import ssl
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

CONNECT_RETRIES = 2
"""How often a failed connection attempt is retried; nothing has been sent at that point."""
MAX_RESPONSE_BYTES = 8_000_000
"""The largest response, as it is received and after decoding; a page of 1,000 transfers has about half a megabyte."""
HAPPY_EYEBALLS_DELAY_SECONDS = 0.25
"""After this long, another address of the same host is tried in parallel (RFC 8305, 8)."""
Header = tuple[str, str]


class RequestNotWritten(Exception):
    """No byte of the request was sent; the message is the reason."""


class RequestCanceled(RequestNotWritten):
    """The caller canceled the request before it was sent."""


class NoResponse(Exception):
    """The request was sent, at least in part, and no complete response arrived; the message is the reason."""


class _ResponseTooLarge(Exception):
    """The response exceeds MAX_RESPONSE_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"the response has more than {MAX_RESPONSE_BYTES:,} bytes")


@dataclass(frozen=True)
class HttpRequest:
    """A request; `headers` without Host and Content-Length, which are added."""

    method: str
    path: str
    headers: Sequence[Header]
    body: bytes = b""


@dataclass(frozen=True)
class HttpResponse:
    """A complete response; header names are in lower case, and gzip or deflate is decoded."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class BankConnection:
    """Connects when first needed, and reconnects if the last connection is not reusable."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, *, timeout_seconds: float) -> None:
        """Take the bank's URL, the TLS context if it is https, and the timeout in seconds for one complete exchange."""
        parts = urlsplit(url)
        self._host, self._host_header, self._base_path = parts.hostname or "", parts.netloc, parts.path
        self._port = parts.port or (80 if tls is None else 443)
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._protocol: _Http11Protocol | None = None

    async def exchange(self, request: HttpRequest, may_send: Callable[[], bool] = lambda: True) -> HttpResponse:
        """Send the request once and return its response.

        Args:
            request: the request.
            may_send: called immediately before the first byte is written.

        Raises:
            RequestCanceled: if `may_send` returned False.
            RequestNotWritten: if no connection could be made in time.
            NoResponse: for any other failure; it is unknown whether the bank has the request.
        """
        is_sent, response = False, None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                protocol = await self._connect()
                message = protocol.serialize(self._add_standard_headers(request))
                if not may_send():
                    raise RequestCanceled("the request was canceled before it was sent")
                is_sent = True
                self._send(protocol, message)
                response = await self._receive(protocol)
                return response
        except TimeoutError:
            reason = f"no response within {self._timeout_seconds:g} seconds"
            raise (NoResponse if is_sent else RequestNotWritten)(reason) from None
        except (OSError, UnicodeError, h11.ProtocolError) as error:
            # UnicodeError: a host name that cannot be encoded for DNS.
            reason = f"the connection failed ({type(error).__name__})"
            raise (NoResponse if is_sent else RequestNotWritten)(reason) from None
        except _ResponseTooLarge as error:
            raise NoResponse(str(error)) from None
        finally:
            if response is None:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one; the next exchange reconnects."""
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None

    def _send(self, protocol: "_Http11Protocol", message: bytes) -> None:
        protocol.send(message)

    async def _receive(self, protocol: "_Http11Protocol") -> HttpResponse:
        return await protocol.response()

    async def _connect(self) -> "_Http11Protocol":
        if self._protocol is None or not self._protocol.is_reusable:
            self.close()
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(OSError),
                stop=stop_after_attempt(1 + CONNECT_RETRIES),
                wait=wait_exponential(multiplier=0.25, max=1),
                reraise=True,
            ):
                with attempt:
                    _, self._protocol = await asyncio.get_running_loop().create_connection(
                        _Http11Protocol,
                        self._host,
                        self._port,
                        ssl=self._tls,
                        happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_SECONDS,
                    )
        assert self._protocol is not None
        return self._protocol

    def _add_standard_headers(self, request: HttpRequest) -> HttpRequest:
        length = [("Content-Length", str(len(request.body)))] if request.body else []
        headers = [("Host", self._host_header), *request.headers, *length]
        return HttpRequest(request.method, self._base_path + request.path, headers, request.body)


class _Http11Protocol(asyncio.Protocol):
    """An established connection. Unsolicited data makes it unusable: it could be mistaken for the next response."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._response: asyncio.Future[HttpResponse] | None = None
        self._head: h11.Response | None = None
        self._content = bytearray()
        self._received_bytes = 0

    @property
    def is_reusable(self) -> bool:
        """Whether the next request may use it: it is open, and the socket has no unread data."""
        if self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def serialize(self, request: HttpRequest) -> bytes:
        """Return the request's bytes. Raises h11.LocalProtocolError if the request is not valid HTTP."""
        head = h11.Request(method=request.method, target=request.path, headers=list(request.headers))
        events = [head, h11.Data(request.body), h11.EndOfMessage()]
        return b"".join(self._http.send(event) or b"" for event in events)

    def send(self, message: bytes) -> None:
        """Write the request's bytes to the socket."""
        assert self._transport is not None, "the connection is used only after it is established"
        self._response = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._transport.write(message)

    async def response(self) -> HttpResponse:
        """Wait for the response. Raises OSError or h11.ProtocolError if no complete response arrives."""
        assert self._response is not None, "a response is awaited only after a request was sent"
        return await self._response

    def close(self) -> None:
        """Close immediately, and discard unsent data."""
        self._response = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse more of the response."""
        if self._response is None or self._response.done():
            self.close()
            return
        # Everything counts: an endless head or endless interim responses fill a connection as a body does.
        self._received_bytes += len(data)
        if self._received_bytes > MAX_RESPONSE_BYTES:
            self._fail(_ResponseTooLarge())
            return
        try:
            self._http.receive_data(data)
            self._parse_events()
        except (h11.RemoteProtocolError, _ResponseTooLarge) as error:
            self._fail(error)

    def eof_received(self) -> None:
        """Handle the end of the stream, which completes some HTTP responses."""
        self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending response."""
        self._fail(exc or ConnectionAbortedError("the bank closed the connection"))

    def _parse_events(self) -> None:
        while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            match event:
                case h11.Response():
                    self._head = event
                case h11.Data():
                    self._content += event.data
                case h11.EndOfMessage():
                    self._complete()
                    return
                case h11.ConnectionClosed():
                    self._fail(ConnectionAbortedError("the bank closed the connection"))
                    return

    def _complete(self) -> None:
        assert self._head is not None, "h11 emits the head before the end"
        assert self._response is not None, "unsolicited data is never parsed"
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in self._head.headers}
        content = _decode(bytes(self._content), headers.get("content-encoding", ""))
        self._response.set_result(HttpResponse(self._head.status_code, headers, content))
        self._head, self._content = None, bytearray()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.close()

    def _fail(self, error: Exception) -> None:
        pending = self._response
        self.close()
        if pending is not None and not pending.done():
            pending.set_exception(error)


_WINDOW_BITS = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}
"""How zlib reads each content encoding; servers disagree on whether deflate has a header."""


def _decode(content: bytes, encoding: str) -> bytes:
    """Return the decoded content; what cannot be decoded is returned as it is, and is then no JSON.

    We ask for no encoding, but a proxy in between may use one all the same.
    """
    for window_bits in _WINDOW_BITS.get(encoding.strip().lower(), ()):
        decompressor = zlib.decompressobj(window_bits)
        try:
            decoded = decompressor.decompress(content, MAX_RESPONSE_BYTES + 1)
        except zlib.error:
            continue
        if len(decoded) > MAX_RESPONSE_BYTES:
            raise _ResponseTooLarge
        if decompressor.eof and not decompressor.unused_data:
            return decoded
    return content
