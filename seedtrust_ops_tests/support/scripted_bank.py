"""A bank that says exactly what a test wrote, byte by byte, where the sandbox bank is too well-behaved to say it.

It listens on a real socket in the test's own event loop and keeps what it was asked.
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
PATIENT_SECONDS = 60.0
"""No answer is late by chance, however busy the machine."""


@dataclass(frozen=True)
class Says:
    """One answer: status, body (JSON, or bytes as they are), headers; `pause_seconds` before each byte of the body."""

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
class Asked:
    """One request as it came in."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedBank:
    """The bank's client, and what the bank was asked so far."""

    client: HuntingtonBank
    asked: list[Asked]


@asynccontextmanager
async def bank_that_says(*answers: Says, timeout_seconds: float = PATIENT_SECONDS) -> AsyncIterator[ScriptedBank]:
    """A bank that gives these answers one after the other, the last one again and again; with none it hangs up."""
    asked: list[Asked] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked.append(await read_request(reader))
                if not answers:
                    return
                await write_answer(writer, answers[min(len(asked), len(answers)) - 1])
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_huntington_bank(settings(f"http://127.0.0.1:{port}", timeout_seconds=timeout_seconds)) as client:
        yield ScriptedBank(client, asked)
    server.close()


def settings(url: str, *, timeout_seconds: float = PATIENT_SECONDS, api_key: str = API_KEY) -> HuntingtonSettings:
    """Settings for one connection at a time, so that each request meets what the one before left behind."""
    values: dict[str, Any] = {
        "HUNTINGTON_API_URL": url,
        "HUNTINGTON_API_KEY": api_key,
        "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct_escrow",
        "HUNTINGTON_CONCURRENCY": 1,
        "HUNTINGTON_TIMEOUT_SECONDS": timeout_seconds,
    }
    return HuntingtonSettings(**values)


def transfer(key: str, **changes: Any) -> dict[str, Any]:
    """A transfer as the contract shows it."""
    sound = {
        "id": "tr_1",
        "idempotency_key": key,
        "status": "completed",
        "return_code": None,
        "reason": None,
        "method": "wire",
        "amount_cents": 12_500,
        "currency": "USD",
        "reference": "7",
        "created_at": "2024-03-01T12:00:00Z",
        "updated_at": "2024-03-01T12:00:00.123456Z",
    }
    return sound | changes


def page(*transfers: dict[str, Any], cursor: str | None = None) -> Says:
    """A page of transfers."""
    return Says(body={"data": list(transfers), "next_cursor": cursor})


async def read_request(reader: asyncio.StreamReader) -> Asked:
    """The next request that comes on a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return Asked(head[0], headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def write_answer(writer: asyncio.StreamWriter, says: Says) -> None:
    """Say it, at its pace."""
    writer.write(says.head)
    pieces: Sequence[bytes] = [bytes((byte,)) for byte in says.content] if says.pause_seconds else [says.content]
    for piece in pieces:
        await asyncio.sleep(says.pause_seconds)
        writer.write(piece)
        await writer.drain()
