"""HTTP servers in place of Dagster's web server: a proxy that drops responses, and a stub with a fixed response.

Each listens on a real socket of the loopback interface, in its own thread.
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
class StubResponse:
    """The response to every request: status, body (JSON or text) and redirect location, or none if it `hangs`."""

    status: int = 200
    body: Any = ""
    location: str | None = None
    hangs: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)

    def bytes(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@contextmanager
def response_dropping_proxy(url: str, *, drop: int) -> Iterator[str]:
    """A proxy in front of the web server that forwards every request, but drops the first `drop` responses."""
    remaining = [drop]

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            response = httpx.post(
                url + self.path, content=body, headers={"Content-Type": "application/json"}, timeout=60
            )
            if remaining[0] > 0:
                remaining[0] -= 1
                self.close_connection = True
                return
            self.send_response(response.status_code)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with _serve(Proxy) as address:
        yield address


@contextmanager
def stub_server(stub: StubResponse) -> Iterator[str]:
    """A server that gives every request the same response and records the requests."""
    is_done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            stub.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if stub.hangs:
                is_done.wait(60)
                return
            self.send_response(stub.status)
            if stub.location:
                self.send_header("Location", stub.location)
            self.send_header("Content-Length", str(len(stub.bytes())))
            self.end_headers()
            self.wfile.write(stub.bytes())

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with _serve(Handler) as address:
        try:
            yield address
        finally:
            is_done.set()


@contextmanager
def _serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
