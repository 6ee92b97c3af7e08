"""The code server keeps its port across restarts of the worker, so that the web server's workspace stays valid."""

import socket
from contextlib import closing
from pathlib import Path

from seedtrust_ops.supervisor.worker_stack import LOOPBACK, choose_code_server_port, find_free_port, write_workspace


def test_port_stays_the_same_for_the_next_worker(tmp_path: Path) -> None:
    port = choose_code_server_port(tmp_path)
    write_workspace(tmp_path, port)
    with (
        closing(socket.create_server((LOOPBACK, port))) as code_server,
        socket.create_connection((LOOPBACK, port)) as web_server,
    ):
        # The server closes first, so the connection stays in TIME_WAIT, as after a worker was stopped.
        code_server.accept()[0].close()
        web_server.recv(1)
    assert choose_code_server_port(tmp_path) == port


def test_port_in_use_by_another_program_is_not_taken(tmp_path: Path) -> None:
    port = find_free_port()
    write_workspace(tmp_path, port)
    with closing(socket.create_server((LOOPBACK, port))):
        assert choose_code_server_port(tmp_path) != port
    write_workspace(tmp_path, port).write_text("load_from: []\n")
    assert choose_code_server_port(tmp_path) > 0
