"""A database on another machine is used only over TLS with its own certificate, signed by an authority that we trust.

The embedded server has no TLS. A proxy in front of it has: it answers PostgreSQL's request for TLS as a server does.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from seedtrust_ops.config import Settings
from seedtrust_ops.database.engine import open_application_engine
from seedtrust_ops.errors import ConfigurationError, DatabaseUnreachable
from seedtrust_ops_tests.resources.test_smtp import _certificate
from seedtrust_ops_tests.support.databases import plain_url

SSL_REQUEST_BYTES = 8
ACCEPTED = b"S"


class TlsProxy:
    """Accepts connections with TLS at a port of 127.0.0.1, and passes them on to the database's unix socket."""

    def __init__(self, certificate: Path, database: URL) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self._database = f"{database.query['host']}/.s.PGSQL.{database.port or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received = b""
        """What clients sent over TLS."""
        self._stop = threading.Event()
        # At its end `asyncio.run` cancels the connections that are still open.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60)

    async def _run(self) -> None:
        async with await asyncio.start_server(self._serve, sock=self._listener):
            await asyncio.to_thread(self._stop.wait)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError), closing(to_client):
            await client.readexactly(SSL_REQUEST_BYTES)
            to_client.write(ACCEPTED)
            await to_client.start_tls(self._context)
            server, to_server = await asyncio.open_unix_connection(self._database)
            answers = asyncio.create_task(_copy(server, to_client))
            while data := await client.read(65_536):
                self.received += data
                to_server.write(data)
            to_server.close()
            await answers


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, which is its own authority, with its key."""
    return _certificate(tmp_path)


@pytest.fixture
def proxy(certificate: Path, database_url: URL) -> Iterator[TlsProxy]:
    with closing(TlsProxy(certificate, database_url)) as proxy:
        yield proxy


def settings_for(database: URL, host: str, port: int, **query: str) -> Settings:
    url = database.set(host=host, port=port).difference_update_query(["host"]).update_query_dict(query)
    return Settings({"SEEDTRUST_DATABASE_URL": plain_url(url)})


def test_database_with_its_own_trusted_certificate_is_used(
    proxy: TlsProxy, certificate: Path, database_url: URL
) -> None:
    verified = {"sslmode": "verify-full", "sslrootcert": str(certificate)}
    engine = open_application_engine(settings_for(database_url, "127.0.0.1", proxy.port, **verified))
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from users")) == 0
    engine.dispose()
    assert b"select count(*) from users" in proxy.received


@pytest.mark.parametrize(
    ("host", "authority"),
    [("127.0.0.1", "another"), ("localhost", "its own")],
    ids=["certificate of an unknown authority", "certificate of another host"],
)
def test_database_with_another_certificate_is_sent_nothing(
    host: str, authority: str, proxy: TlsProxy, certificate: Path, database_url: URL, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    trusted = certificate if authority == "its own" else _certificate(tmp_path / "other")
    verified = {"sslmode": "verify-full", "sslrootcert": str(trusted)}
    with pytest.raises(DatabaseUnreachable, match="certificate"):
        open_application_engine(settings_for(database_url, host, proxy.port, **verified))
    assert proxy.received == b""


@pytest.mark.parametrize("query", [{}, {"sslmode": "require"}, {"sslmode": "verify-ca"}])
def test_unverified_database_on_another_machine_is_not_contacted(
    query: dict[str, str], database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    with pytest.raises(ConfigurationError, match="SEEDTRUST_DATABASE_URL is refused"):
        open_application_engine(settings_for(database_url, "db.example", 5432, **query))
