"""Stands before the sandbox bank and answers 422 to every request to send, whatever the bank has done about it.

A gateway that gives one request another one's answer looks so; look-ups go through as they are.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

REFUSAL = b'{"code": "invalid_account", "message": "The account is closed."}'


@contextmanager
def refusing_before(bank_url: str) -> Iterator[str]:
    """The address at which the bank at `bank_url` seems to refuse everything."""

    class Refusing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(422, REFUSAL)

        def do_GET(self) -> None:
            said = self._forward(b"")
            self._answer(said.status_code, said.content)

        def _forward(self, body: bytes) -> httpx.Response:
            names = ("Authorization", "Idempotency-Key", "Content-Type")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            return httpx.request(self.command, bank_url + self.path, content=body, headers=headers, timeout=30)

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
