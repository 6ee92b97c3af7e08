"""Servers that stand where the web server should be: one that loses its answers, and one that says what a test wrote.

Each listens on a real socket of the loopback interface, in a thread of its own.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass
class Says:
    """One answer, the same to everybody: status, body (JSON, or text as it is), where to go; or a long silence."""

    status: int = 200
    body: Any = ""
    location: str | None = None
    silent: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)

    def bytes(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@contextmanager
def losing_answers(url: str, *, lost: int) -> Iterator[str]:
    """A proxy before the web server that does what it is asked, and hangs up instead of the first `lost` answers."""
    left = [lost]

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = httpx.post(url + self.path, content=body, headers={"Content-Type": "application/json"}, timeout=60)
            if left[0] > 0:
                left[0] -= 1
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with _listening(Proxy) as address:
        yield address


@contextmanager
def server_that_says(says: Says) -> Iterator[str]:
    """A server that gives every question the same answer, and keeps what it was asked."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            says.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if says.silent:
                over.wait(60)
                return
            self.send_response(says.status)
            if says.location:
                self.send_header("Location", says.location)
            self.send_header("Content-Length", str(len(says.bytes())))
            self.end_headers()
            self.wfile.write(says.bytes())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with _listening(Handler) as address:
        try:
            yield address
        finally:
            over.set()


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
