"""Nothing is said to a bank that does not prove who it is, whatever the environment says."""

import asyncio
import logging
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
from seedtrust_ops.ports.bank import Answer, NotSent
from seedtrust_ops.resources import http1_connection, huntington_client
from seedtrust_ops_tests.resources.bank_calls import may_leave, order
from seedtrust_ops_tests.resources.test_smtp import _certificate

ANSWER = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@contextmanager
def bank_with(certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server with this certificate; yields its port, and what it could read."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    read: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    read.append(connection.recv(65_536))
                    connection.sendall(ANSWER)
            except OSError:
                continue

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener.getsockname()[1], read
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join(30)


@pytest.fixture(autouse=True)
def certificates_read_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(http1_connection, "CONNECT_RETRIES", 0)
    huntington_client._certificates.cache_clear()
    yield
    huntington_client._certificates.cache_clear()


def originate(host: str, port: int) -> Answer:
    async def send() -> Answer:
        async with huntington_client.open_huntington_bank(settings(f"https://{host}:{port}")) as bank:
            return await bank.create_transfer(order(), may_leave)

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
    ids=["as it is", "with what switches it off elsewhere"],
)
def test_a_bank_with_a_certificate_that_nobody_vouches_for_is_told_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with bank_with(_certificate(tmp_path)) as (port, read):
        assert isinstance(originate("127.0.0.1", port), NotSent)
    assert read == []


def test_a_bank_with_another_hosts_certificate_is_told_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with bank_with(certificate) as (port, read):
        assert isinstance(originate("localhost", port), NotSent)
        assert read == []
        # The same server by the name that its certificate is for.
        assert not isinstance(originate("127.0.0.1", port), NotSent)
        assert read[0].startswith(b"POST ")


@pytest.mark.parametrize(("url", "warned"), [("http://bank.example", 1), ("https://bank.example", 0)])
def test_a_bank_that_is_spoken_to_in_the_clear_is_warned_of_once(
    url: str, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_twice() -> None:
        for _ in range(2):
            async with huntington_client.open_huntington_bank(settings(url)):
                pass

    huntington_client._warn_of_plain_http.cache_clear()
    with caplog.at_level(logging.WARNING):
        asyncio.run(open_twice())
    assert caplog.text.count("account numbers and our key can be read on their way") == warned
