"""A proxy in front of the sandbox bank that responds 422 to every transfer request, whatever the bank did with it.

It simulates a gateway that mixes up responses; lookups are passed through unchanged.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

REFUSAL = b'{"code": "invalid_account", "message": "The account is closed."}'


@contextmanager
def refusing_proxy(bank_url: str) -> Iterator[str]:
    """Yield the proxy's URL, at which the bank at `bank_url` appears to refuse every transfer."""

    class RefusingHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._forward(self.rfile.read(int(self.headers["Content-Length"])))
            self._respond(422, REFUSAL)

        def do_GET(self) -> None:
            response = self._forward(b"")
            self._respond(response.status_code, response.content)

        def _forward(self, body: bytes) -> httpx.Response:
            names = ("Authorization", "Idempotency-Key", "Content-Type")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            return httpx.request(self.command, bank_url + self.path, content=body, headers=headers, timeout=30)

        def _respond(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusingHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
