"""Starts the real PgBouncer in front of the test session's server; `make pgbouncer` installs it."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.engine import URL

from seedtrust_ops_tests.support.databases import postgres_folder
from seedtrust_ops_tests.support.waiters import wait_until

# It does not run as root; the test session's PostgreSQL server runs as this user.
USER = "pgserver" if os.geteuid() == 0 else getpass.getuser()


@contextmanager
def pgbouncer(server: URL, mode: str, *, sessions: int, settings: str = "") -> Iterator[URL]:
    """Yield a URL of `server` through a pool of `sessions` server connections, in pool mode session, transaction ..."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.fail("PgBouncer is not installed: run `make pgbouncer`.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with postgres_folder() as folder:
        folder.chmod(0o755)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={server.query['host']} port={server.port or 5432} user={server.username}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {sessions}\n{settings}\n"
        )
        process = subprocess.Popen([program, "-q", configuration], user=USER)
        try:
            wait_until(lambda: _accepts_connections(port, process), what="PgBouncer")
            yield server.set(host="127.0.0.1", port=port, query={})
        finally:
            process.terminate()
            process.wait(60)


def _accepts_connections(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "PgBouncer ended"
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
