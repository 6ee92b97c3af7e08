"""Nothing is sent to a bank without a valid certificate, whatever the environment variables are."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from seedtrust_ops.config import HuntingtonSettings
from seedtrust_ops.ports.bank import NotSent, TransferResponse
from seedtrust_ops.resources import http1_connection, huntington_client
from seedtrust_ops_tests.resources.bank_calls import make_order, may_send
from seedtrust_ops_tests.resources.test_smtp import _certificate

RESPONSE = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@contextmanager
def serve_with_certificate(certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server with this certificate; yield its port and the data that it received."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    received.append(connection.recv(65_536))
                    connection.sendall(RESPONSE)
            except OSError:
                continue

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener.getsockname()[1], received
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join(30)


@pytest.fixture(autouse=True)
def single_connection_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)


def create_transfer_at(host: str, port: int) -> TransferResponse:
    async def send() -> TransferResponse:
        async with huntington_client.open_huntington_bank(settings(f"https://{host}:{port}")) as bank:
            return await bank.create_transfer(make_order(), may_send)

    return asyncio.run(send())


def settings(url: str) -> HuntingtonSettings:
    values: dict[str, Any] = {
        "HUNTINGTON_API_URL": url,
        "HUNTINGTON_API_KEY": SecretStr("our-key"),
        "HUNTINGTON_FUNDING_ACCOUNT_ID": "acct",
        "HUNTINGTON_CONCURRENCY": 1,
        "HUNTINGTON_TIMEOUT_SECONDS": 30,
    }
    return HuntingtonSettings(**values)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PYTHONHTTPSVERIFY": "0", "CURL_CA_BUNDLE": "", "REQUESTS_CA_BUNDLE": "", "NODE_TLS_REJECT_UNAUTHORIZED": "0"},
    ],
    ids=["unchanged environment", "variables that disable verification elsewhere"],
)
def test_bank_with_an_untrusted_certificate_is_sent_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with serve_with_certificate(_certificate(tmp_path)) as (port, received):
        assert isinstance(create_transfer_at("127.0.0.1", port), NotSent)
    assert received == []


def test_bank_with_another_hosts_certificate_is_sent_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serve_with_certificate(certificate) as (port, received):
        assert isinstance(create_transfer_at("localhost", port), NotSent)
        assert received == []
        # The same server, by the name on its certificate.
        assert not isinstance(create_transfer_at("127.0.0.1", port), NotSent)
        assert received[0].startswith(b"POST ")
