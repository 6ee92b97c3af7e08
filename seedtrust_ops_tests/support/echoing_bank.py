"""A bank stub that echoes every request, including account number and API key, in every kind of response.

It listens on a real socket and keeps no ledger: only its responses matter.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KINDS = (
    "completed",
    "rejected",
    "returned",
    "refused",
    "key reused",
    "rate limited",
    "outage",
    "garbage",
    "another key",
    "redirected",
)


@contextmanager
def echoing_bank() -> Iterator[tuple[str, list[str]]]:
    """Yield the bank's URL and the kinds of responses it gave; the payee's name selects the kind of response."""
    kinds_sent: list[str] = []
    echoes: dict[str, str] = {}

    class EchoingHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            key, transfer = self.headers["Idempotency-Key"], json.loads(body)
            echo = f"{transfer['counterparty']['account_number']} {self.headers['Authorization']} {body}"
            kind = transfer["counterparty"]["name"]
            if kind == "rate limited" and key in echoes:
                kind = "completed"
            echoes[key] = echo
            kinds_sent.append(kind)
            problem = {"code": f"no_{transfer['counterparty']['account_number']}", "message": echo}
            responses: dict[str, tuple[int, Any]] = {
                "refused": (422, problem),
                "key reused": (409, problem),
                "rate limited": (429, problem),
                "outage": (503, problem),
                "garbage": (201, echo),
                "another key": (201, _transfer("another-key", "completed", transfer, echo)),
                "redirected": (302, problem),
            }
            self._respond(*responses.get(kind, (201, _transfer(key, kind, transfer, echo))))

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith("/v1/accounts/"):
                account = {"id": path.rpartition("/")[2], "available_cents": 10**12, "currency": "USD"}
                return self._respond(200, account)
            keys = parse_qs(urlsplit(self.path).query).get("idempotency_key", [])
            known = [_transfer(key, "rejected", {}, echoes[key]) for key in keys if key in echoes]
            return self._respond(200, {"data": known, "next_cursor": None})

        def _respond(self, status: int, body: Any) -> None:
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Retry-After", "0")
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), EchoingHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kinds_sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _transfer(key: str, status: str, request: dict[str, Any], echo: str) -> dict[str, Any]:
    return {
        "id": f"tr_{key}",
        "idempotency_key": key,
        "status": status,
        "return_code": echo if status == "returned" else None,
        "reason": echo,
        "method": "ach",
        "amount_cents": request.get("amount_cents", 100),
        "currency": "USD",
        "reference": key.rpartition("-")[2],
        "created_at": "2024-03-01T12:00:00Z",
        "updated_at": "2024-03-01T12:00:00Z",
    }
