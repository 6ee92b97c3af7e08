"""One HTTP/1.1 connection to the bank, of which it is known to the byte whether a request has left.

Messages are h11's, sockets and TLS asyncio's. It has no redirects, cookies, proxies or second tries of a request, and
it knows neither the bank's paths nor what an answer means.
"""

import asyncio
import select
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

CONNECT_RETRIES = 2
"""How often a connection that could not be made is tried again; nothing has left by then."""
NEXT_ADDRESS_SECONDS = 0.25
"""After so long another address of the same host is tried beside the first (RFC 8305, 8)."""
Header = tuple[str, str]


class RequestNotWritten(Exception):
    """No byte of the request has left; says why."""


class CalledBack(RequestNotWritten):
    """Whoever asked did not want it to leave any more."""


class NoResponse(Exception):
    """The request left, in part at least, and no whole answer came; says why."""


@dataclass(frozen=True)
class BankRequest:
    """A request; `headers` beside Host and Content-Length."""

    method: str
    path: str
    headers: Sequence[Header]
    body: bytes = b""


@dataclass(frozen=True)
class BankResponse:
    """A whole answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class BankConnection:
    """Connects when it is first needed, and anew where the last connection can't be relied on."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, *, timeout_seconds: float) -> None:
        """Take the bank's address, whom to trust if it is https, and the seconds for one whole exchange."""
        parts = urlsplit(url)
        self._host, self._shown_host, self._folder = parts.hostname or "", parts.netloc, parts.path
        self._port = parts.port or (80 if tls is None else 443)
        self._tls = tls
        self._timeout_seconds = timeout_seconds
        self._line: _Line | None = None

    async def exchange(self, request: BankRequest, may_leave: Callable[[], bool] = lambda: True) -> BankResponse:
        """Send the request once and return its answer.

        Args:
            request: what is asked.
            may_leave: asked when the next thing to do is to hand the first byte to the system.

        Raises:
            CalledBack: it might not leave.
            RequestNotWritten: no connection could be made in time.
            NoResponse: anything else; whether the bank has the request is open.
        """
        has_left, answer = False, None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                line = await self._connected()
                message = line.message_of(self._whole(request))
                if not may_leave():
                    raise CalledBack("it was called back before it left")
                has_left = True
                self._send(line, message)
                answer = await self._receive(line)
                return answer
        except TimeoutError:
            trouble = f"no answer within {self._timeout_seconds:g} seconds"
            raise (NoResponse if has_left else RequestNotWritten)(trouble) from None
        except (OSError, UnicodeError, h11.ProtocolError) as error:
            # UnicodeError: a host name that no name server can be asked for.
            trouble = f"the connection failed ({type(error).__name__})"
            raise (NoResponse if has_left else RequestNotWritten)(trouble) from None
        finally:
            if answer is None:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one; the next exchange makes another."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _send(self, line: "_Line", message: bytes) -> None:
        line.send(message)

    async def _receive(self, line: "_Line") -> BankResponse:
        return await line.answer()

    async def _connected(self) -> "_Line":
        if self._line is None or not self._line.is_fit:
            self.close()
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(OSError),
                stop=stop_after_attempt(1 + CONNECT_RETRIES),
                wait=wait_exponential(multiplier=0.25, max=1),
                reraise=True,
            ):
                with attempt:
                    _, self._line = await asyncio.get_running_loop().create_connection(
                        _Line, self._host, self._port, ssl=self._tls, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS
                    )
        assert self._line is not None
        return self._line

    def _whole(self, request: BankRequest) -> BankRequest:
        length = [("Content-Length", str(len(request.body)))] if request.body else []
        headers = [("Host", self._shown_host), *request.headers, *length]
        return BankRequest(request.method, self._folder + request.path, headers, request.body)


class _Line(asyncio.Protocol):
    """A connection that was made. What comes unasked makes it unfit: it could be taken for the next answer."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[BankResponse] | None = None
        self._head: h11.Response | None = None
        self._content = bytearray()

    @property
    def is_fit(self) -> bool:
        """Whether the next request may use it: it is open, and the system holds nothing that came on it."""
        if self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def message_of(self, request: BankRequest) -> bytes:
        """Return the request's bytes; raises h11.LocalProtocolError for one that can't be written."""
        head = h11.Request(method=request.method, target=request.path, headers=list(request.headers))
        events = [head, h11.Data(request.body), h11.EndOfMessage()]
        return b"".join(self._http.send(event) or b"" for event in events)

    def send(self, message: bytes) -> None:
        """Hand the request's bytes to the system."""
        assert self._transport is not None, "a line is given out once it is connected"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)

    async def answer(self) -> BankResponse:
        """Wait for the answer; raises OSError or h11.ProtocolError where no whole one came."""
        assert self._answer is not None, "an answer is waited for once something was sent"
        return await self._answer

    def close(self) -> None:
        """Close it at once, whatever was not written yet."""
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on in the answer."""
        if self._answer is None or self._answer.done():
            self.close()
            return
        try:
            self._http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self._end(error)

    def eof_received(self) -> None:
        """Take what ends with the connection for whole where HTTP does."""
        self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._end(exc or ConnectionAbortedError("the bank hung up"))

    def _read(self) -> None:
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
                    self._end(ConnectionAbortedError("the bank hung up"))
                    return

    def _complete(self) -> None:
        assert self._head is not None, "h11 gives the head before the end"
        assert self._answer is not None, "what comes unasked is not read"
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in self._head.headers}
        self._answer.set_result(BankResponse(self._head.status_code, headers, bytes(self._content)))
        self._head, self._content = None, bytearray()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.close()

    def _end(self, error: Exception) -> None:
        waiting = self._answer
        self.close()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
