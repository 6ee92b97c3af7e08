"""Who reaches the servers: other users of the machine only the web server, other machines none of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import URL

from seedtrust_ops.launcher.host_client import LAUNCHER_FOLDER, SOCKET_FILE
from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, build_web_server
from seedtrust_ops_tests.client.operations_server import run_web_server, run_worker, server_variables
from seedtrust_ops_tests.support.dagster_homes import temporary_dagster_home
from seedtrust_ops_tests.support.other_user import find_listening_addresses, find_reachable_by_another_user


@pytest.fixture
def open_home_parent() -> Iterator[Path]:
    """A folder that other users can enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="seedtrust-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def processes_of(home: Path) -> list[psutil.Process]:
    """Return the running processes with this DAGSTER_HOME that this test started."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running()
        and process.status() != psutil.STATUS_ZOMBIE
        and process.environ().get("DAGSTER_HOME") == str(home)
    ]


def test_web_server_command_names_loopback() -> None:
    command = build_web_server({}, Path("workspace.yaml"), 1).command
    assert command[command.index("--host") + 1] == LOOPBACK == "127.0.0.1"


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(600)
def test_other_users_reach_the_web_server_only(
    postgres_server: URL, database_url: URL, field_key: str, open_home_parent: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with temporary_dagster_home(postgres_server, open_home_parent / "home") as home:
        variables = server_variables(home, database_url, field_key)
        with run_worker(home, variables, log) as workspace, run_web_server(workspace, variables, log) as url:
            processes = processes_of(home.folder)
            addresses = find_listening_addresses(processes)
            sockets = {Path(address) for address in addresses if isinstance(address, str)}
            # The run host binds through a link in /proc; its path in the file system is this.
            run_host_socket = home.folder / LAUNCHER_FOLDER / SOCKET_FILE
            sockets = {path for path in sockets if not path.is_relative_to("/proc/self")} | {run_host_socket}
            assert len(sockets) == 3, "the code server, its child, and the run host"
            assert {path.parent for path in sockets} == {home.folder / WORKER_FOLDER, run_host_socket.parent}
            ports = {address for address in addresses if isinstance(address, int)}
            assert {f"http://{LOOPBACK}:{port}" for port in ports} == {url}
            hosts = {
                one.laddr.ip
                for process in processes
                for one in process.net_connections("inet")
                if one.status == psutil.CONN_LISTEN
            }
            assert hosts == {LOOPBACK}
            reached = find_reachable_by_another_user(
                {*ports, *map(str, sockets)}, {home.folder, *(path.parent for path in sockets)}
            )
            assert reached == {*ports, str(home.folder)}
