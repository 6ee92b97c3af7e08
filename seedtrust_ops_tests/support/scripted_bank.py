"""A bank stub that returns exactly the bytes a test specifies, for responses that the sandbox bank never gives.

It listens on a real socket in the test's own event loop and records its requests.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.resources.huntington_client import HuntingtonBank, open_huntington_bank

API_KEY = "sk-scripted-0123456789"
LONG_TIMEOUT_SECONDS = 60.0
"""Long enough that no response is late by accident on a busy machine."""


@dataclass(frozen=True)
class ScriptedResponse:
    """One response: status, body (JSON, or raw bytes), headers; `pause_seconds` before each byte of the body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_seconds: float = 0

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def head(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"Content-Length: {len(self.content)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as received."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedBank:
    """The bank's client, and the requests that the bank has received so far."""

    client: HuntingtonBank
    requests: list[ReceivedRequest]


@asynccontextmanager
async def run_scripted_bank(
    *responses: ScriptedResponse, timeout_seconds: float = LONG_TIMEOUT_SECONDS
) -> AsyncIterator[ScriptedBank]:
    """Run a bank that gives these responses in order and repeats the last; without any, it closes the connection."""
    requests: list[ReceivedRequest] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append(await read_request(reader))
                if not responses:
                    return
                await write_response(writer, responses[min(len(requests), len(responses)) - 1])
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_huntington_bank(settings(f"http://127.0.0.1:{port}", timeout_seconds=timeout_seconds)) as client:
        yield ScriptedBank(client, requests)
    server.close()


def settings(url: str, *, timeout_seconds: float = LONG_TIMEOUT_SECONDS, api_key: str = API_KEY) -> HuntingtonSettings:
    """Settings with a single connection, so that each request meets what the previous one left behind."""
    values: dict[str, Any] = {
        "HUNTINGTON_API_URL": url,
        "HUNTINGTON_API_KEY": api_key,
        "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
        "HUNTINGTON_CONCURRENCY": 1,
        "HUNTINGTON_TIMEOUT_SECONDS": timeout_seconds,
    }
    return HuntingtonSettings(**values)


def transfer(key: str, **changes: Any) -> dict[str, Any]:
    """A valid transfer in the bank's JSON, with these changes; its reference is the last part of its key."""
    valid = {
        "id": "tr_1",
        "idempotency_key": key,
        "status": "completed",
        "return_code": None,
        "reason": None,
        "method": "wire",
        "amount_cents": 12_500,
        "currency": "USD",
        "reference": key.rpartition("-")[2],
        "created_at": "2024-03-01T12:00:00Z",
        "updated_at": "2024-03-01T12:00:00.123456Z",
    }
    return valid | changes


def page(*transfers: dict[str, Any], cursor: str | None = None) -> ScriptedResponse:
    """A page of transfers."""
    return ScriptedResponse(body={"data": list(transfers), "next_cursor": cursor})


async def read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    """Read the next request on a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return ReceivedRequest(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def write_response(writer: asyncio.StreamWriter, response: ScriptedResponse) -> None:
    """Write the response, at its pace."""
    writer.write(response.head)
    pieces: Sequence[bytes] = (
        [bytes((byte,)) for byte in response.content] if response.pause_seconds else [response.content]
    )
    for piece in pieces:
        await asyncio.sleep(response.pause_seconds)
        writer.write(piece)
        await writer.drain()
