"""The request guard over raw HTTP: which requests reach the application, and with what status others are refused."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from seedtrust_ops.web.request_guard import RequestGuard
from seedtrust_ops_tests.support.waiters import wait_until

OWN_NAME = "operations.example"
LAUNCH = b'{"query": "mutation { launchRun }"}'
JSON = "Content-Type: application/json"
UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==",
)
RUN_ID = "3c2cf3e5-08a2-44ad-9f0e-6a6c0cb6d6d9"


class Application:
    """Stands in for Dagster's: it answers everything, and counts what reached it."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"reached"})


class Guarded:
    """The guarded application on a real socket."""

    def __init__(self, application: Application, port: int) -> None:
        self.application = application
        self.port = port

    def send(self, request: str, *headers: str, body: bytes = b"") -> tuple[int, str]:
        """Send a request with exactly these headers; return the response's status, and its head and body.

        `PORT` stands for the server's port, and a Host header is added if `headers` has none.
        """
        head = [f"{request} HTTP/1.1", *headers]
        if not any(header.startswith("Host:") for header in headers):
            head.append("Host: 127.0.0.1:PORT")
        if "Upgrade: websocket" not in headers:
            head += ["Connection: close", f"Content-Length: {len(body)}"]
        lines = "".join(f"{line}\r\n" for line in head if line != "Host:") + "\r\n"
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=30)) as connection:
            connection.sendall(lines.replace("PORT", str(self.port)).encode("latin-1") + body)
            connection.shutdown(socket.SHUT_WR)
            response = b"".join(iter(lambda: connection.recv(65_536), b"")).decode("latin-1")
        return int(response.split()[1]), response


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    application = Application()
    config = uvicorn.Config(RequestGuard(application, {OWN_NAME}), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_until(lambda: server.started, what="the server")
        yield Guarded(application, listener.getsockname()[1])
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        ("POST /graphql", (JSON,)),
        ("POST /graphql?op=LaunchRun", ("Content-Type: Application/JSON; charset=utf-8",)),
        ("POST /graphql", (JSON, "Origin: http://127.0.0.1:PORT", "Sec-Fetch-Site: same-origin")),
        ("POST /graphql", (JSON, "Host: localhost:8080", "Origin: http://LOCALHOST:8080")),
        ("POST /graphql", (JSON, "Host: [::1]:3000", "Origin: http://[::1]:3000")),
        ("POST /graphql", (JSON, f"Host: {OWN_NAME}", f"Origin: https://{OWN_NAME}")),
        ("POST /graphql", (JSON, f"Host: {OWN_NAME.upper()}:443")),
        ("GET /", ()),
        ("GET /runs/1", ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")),
        ("HEAD /server_info", ()),
        (f"GET /logs/{RUN_ID}/compute_logs/abcdefgh/err", ()),
        ("GET /logs/__repository__/a_sensor/12.0/out", ()),
        (f"GET /download_debug/{RUN_ID}", ()),
    ],
)
def test_own_requests_reach_the_application(guarded: Guarded, request_line: str, headers: tuple[str, ...]) -> None:
    reached = guarded.application.reached
    status, response = guarded.send(request_line, *headers, body=LAUNCH if "POST" in request_line else b"")
    assert (status, guarded.application.reached - reached) == (200, 1), response


FOREIGN_REQUESTS = {
    # What a form or a script can send without asking.
    "form": (415, "POST /graphql", ("Content-Type: application/x-www-form-urlencoded",)),
    "file form": (415, "POST /graphql", ("Content-Type: multipart/form-data; boundary=x",)),
    "plain text": (415, "POST /graphql", ("Content-Type: text/plain",)),
    "plain text that mentions JSON": (415, "POST /graphql", ("Content-Type: text/plain; x=application/json",)),
    "no content type": (415, "POST /graphql?query=mutation", ()),
    "GraphQL as text": (415, "POST /graphql", ("Content-Type: application/graphql",)),
    "link": (400, "GET /graphql?query=mutation{launchRun}", ()),
    "link to the playground": (400, "GET /graphql?query=mutation{launchRun}", ("Accept: text/html",)),
    "encoded path": (400, "GET /graph%71l?query=mutation{launchRun}", ()),
    "question whether JSON is allowed": (
        *(415, "OPTIONS /graphql"),
        ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"),
    ),
    # Pages of other origins, if a browser should send JSON for one.
    "other site": (403, "POST /graphql", (JSON, "Origin: http://foreign.example")),
    "other port": (403, "POST /graphql", (JSON, "Origin: http://127.0.0.1:1")),
    "other name of this machine": (403, "POST /graphql", (JSON, "Origin: http://localhost:PORT")),
    "name that starts like ours": (
        *(403, "POST /graphql"),
        (JSON, f"Host: {OWN_NAME}", f"Origin: https://{OWN_NAME}.foreign.example"),
    ),
    "sandboxed page": (403, "POST /graphql", (JSON, "Origin: null")),
    "empty origin": (403, "POST /graphql", (JSON, "Origin: ")),
    "unencrypted page of our name": (
        *(403, "POST /graphql"),
        (JSON, f"Host: {OWN_NAME}", f"Origin: http://{OWN_NAME}", "Sec-Fetch-Site: cross-site"),
    ),
    "sibling site without an origin": (403, "POST /graphql", (JSON, "Sec-Fetch-Site: same-site")),
    # Names that lead here.
    "rebound name": (
        *(400, "POST /graphql"),
        (JSON, "Host: rebound.example:PORT", "Origin: http://rebound.example:PORT", "Sec-Fetch-Site: same-origin"),
    ),
    "rebound name that reads": (400, "GET /server_info", ("Host: rebound.example",)),
    "other address": (400, "POST /graphql", (JSON, "Host: 192.0.2.7:PORT")),
    "subdomain of our name": (400, "POST /graphql", (JSON, f"Host: evil.{OWN_NAME}")),
    "user before our name": (400, "POST /graphql", (JSON, f"Host: x@{OWN_NAME}")),
    "two hosts": (400, "POST /graphql", (JSON, f"Host: {OWN_NAME}", "Host: rebound.example")),
    "empty host": (400, "POST /graphql", (JSON, "Host: ")),
    "no host": (400, "POST /graphql", (JSON, "Host:")),
    # Dagster's other doors.
    "materialization": (404, "POST /report_asset_materialization/books", ()),
    "materialization as JSON": (404, "POST /report_asset_materialization/books", (JSON,)),
    "passed asset check": (404, "POST /report_asset_check/books?check_name=c&passed=true", ()),
    "observation": (404, "POST /report_asset_observation/books", ()),
    "notebook": (404, "GET /notebook?path=/etc/x.ipynb&repoLocName=seedtrust_ops", ()),
    "old notebook": (404, "GET /dagit/notebook?path=x.ipynb", ()),
    "old server info": (404, "GET /dagit_info", ()),
    "other method": (415, "DELETE /graphql", ()),
    # Paths out of Dagster's folders, and paths that name no file.
    "encoded traversal": (404, "GET /logs/..%2f..%2f..%2fetc/passwd", ()),
    "plain traversal": (404, "GET /logs/../../../etc/passwd", ()),
    "traversal in the middle": (404, f"GET /logs/{RUN_ID}/../../x/out", ()),
    "absolute path": (404, "GET /logs//etc/passwd", ()),
    "null byte": (404, "GET /logs/a%00/out", ()),
    "backslashes": (404, "GET /logs/..%5c..%5cx/out", ()),
    "one part": (404, "GET /logs/out", ()),
    "no part": (404, "GET /logs/", ()),
    "debug file of no run": (404, "GET /download_debug/..%2fx", ()),
    # WebSockets, which browsers open to any server.
    "socket of another site": (403, "GET /graphql", (*UPGRADE, "Origin: http://foreign.example")),
    "socket of a sandboxed page": (403, "GET /graphql", (*UPGRADE, "Origin: null")),
    "socket of a rebound name": (
        *(400, "GET /graphql"),
        (*UPGRADE, "Host: rebound.example", "Origin: http://rebound.example"),
    ),
}


@pytest.mark.parametrize("name", FOREIGN_REQUESTS)
def test_foreign_requests_are_refused(guarded: Guarded, name: str) -> None:
    expected, request_line, headers = FOREIGN_REQUESTS[name]
    reached = guarded.application.reached
    status, response = guarded.send(request_line, *headers, body=b"" if "GET" in request_line else LAUNCH)
    assert (status, guarded.application.reached - reached) == (expected, 0), response
    assert "access-control" not in response.lower()
    (error,) = json.loads(response.partition("\r\n\r\n")[2])["errors"]
    assert error["message"].endswith(".")


@pytest.mark.parametrize("origin", [(), ("Origin: http://127.0.0.1:PORT",)], ids=["a program", "our page"])
def test_own_websockets_are_accepted(guarded: Guarded, origin: tuple[str, ...]) -> None:
    reached = guarded.application.reached
    status, _ = guarded.send("GET /graphql", *UPGRADE, *origin)
    assert (status, guarded.application.reached - reached) == (101, 1)


@pytest.mark.parametrize("headers", [(), ("Host: foreign.example",)], ids=["answered", "refused"])
def test_no_page_may_show_ours_in_a_frame(guarded: Guarded, headers: tuple[str, ...]) -> None:
    _, response = guarded.send("GET /", *headers)
    assert "content-security-policy: frame-ancestors 'none'\r\n" in response
    assert "cross-origin-resource-policy: same-origin\r\n" in response


def test_refusals_are_logged_on_one_line(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    guarded.send("POST /graphql%0aRefused", JSON, "Origin: http://foreign.example\x85")
    (message,) = caplog.messages
    assert message.startswith("Refused POST /graphql Refused (403): Pages of 'http://foreign.example")
    assert len(message.splitlines()) == 1
