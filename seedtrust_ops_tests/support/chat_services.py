"""Chat services over HTTP, as Apprise's `json://` posts to them; one server plays any number, told apart by path."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class ChatServices:
    """What each service has accepted, by path, and the paths that are down."""

    port: int
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)

    def url(self, path: str) -> str:
        return f"json://127.0.0.1:{self.port}{path}"

    def titles(self, path: str) -> list[str]:
        return [message["title"] for message in self.messages.get(path, [])]


@contextmanager
def serve_chat_services() -> Iterator[ChatServices]:
    """Yield the services on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_down = self.path in services.down
            if not is_down:
                services.messages.setdefault(self.path, []).append(message)
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.OK)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    services = ChatServices(server.server_port)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield services
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
