"""Servers listen on loopback only: the web UI has no login, and the code server runs what it is asked to."""

import json
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

from seedtrust_ops.supervisor.worker_stack import (
    LOOPBACK,
    build_code_server,
    build_web_server,
    find_free_port,
    is_listening,
)
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.waiters import wait_until


def test_every_server_command_names_loopback() -> None:
    for program in (build_web_server({}, Path("workspace.yaml"), 1), build_code_server({}, 1)):
        (host,) = [
            after for option, after in zip(program.command, program.command[1:], strict=False) if option == "--host"
        ]
        assert host == LOOPBACK == "127.0.0.1"


@pytest.mark.usefixtures("daemon_processes")
def test_web_server_listens_on_loopback_only(dagster_home: DagsterHome, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    port = find_free_port()
    program = build_web_server(
        dagster_home.variables | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, workspace, port
    )
    server = subprocess.Popen(
        program.command, env=dict(program.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_listening(port), seconds=120, what="the web server")
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/server_info", timeout=60) as response:
            assert "dagster_webserver_version" in json.load(response)
        listening = {
            connection.laddr.ip
            for process in [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {LOOPBACK}
    finally:
        server.terminate()
        server.wait(120)
