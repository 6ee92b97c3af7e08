"""The workspace by which the web server finds the code server: it stays true when the worker is started again."""

import socket
from contextlib import closing
from pathlib import Path

from seedtrust_ops.supervisor.worker_stack import LOOPBACK, code_server_port, free_port, write_workspace


def test_the_next_worker_has_the_port_that_the_web_server_knows(tmp_path: Path) -> None:
    port = code_server_port(tmp_path)
    write_workspace(tmp_path, port)
    with (
        closing(socket.create_server((LOOPBACK, port))) as code_server,
        socket.create_connection((LOOPBACK, port)) as web_server,
    ):
        # Closed by the server's side first, the connection lingers, as those of a worker do that was stopped.
        code_server.accept()[0].close()
        web_server.recv(1)
    assert code_server_port(tmp_path) == port


def test_a_port_that_somebody_else_took_is_left_to_them(tmp_path: Path) -> None:
    port = free_port()
    write_workspace(tmp_path, port)
    with closing(socket.create_server((LOOPBACK, port))):
        assert code_server_port(tmp_path) != port
    write_workspace(tmp_path, port).write_text("load_from: []\n")
    assert code_server_port(tmp_path) > 0
