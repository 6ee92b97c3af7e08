"""A launcher kills a run host that does not respond, and no other process."""

import subprocess
import sys

import pytest

PROGRAM = """
import socket
from seedtrust_ops.launcher import host_client
host_client.PROBE_SECONDS = 0.01
# The kernel reports pid 0 for a process in another container.
host_client.get_listener_pid = lambda _connection: 0
client, server = socket.socketpair()
try:
    host_client.request_or_kill(client, {})
except TimeoutError as error:
    print(error)
"""


@pytest.mark.usefixtures("child_processes")
def test_run_host_in_another_container_is_not_killed_and_neither_are_we() -> None:
    # It gets its own session, because a wrong kill would signal its whole process group.
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, start_new_session=True)
    assert process.returncode == 0
    assert "the run host (process 0) did not respond" in process.stdout
