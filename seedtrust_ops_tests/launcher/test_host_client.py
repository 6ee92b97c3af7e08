"""Whoever asks a run host that does not answer ends that one alone."""

import subprocess
import sys

PROGRAM = """
import socket
from seedtrust_ops.launcher import host_client
host_client.TURN_SECONDS = 0.01
# What the kernel says of a process of another container.
host_client.listening_pid = lambda _connection: 0
ours, theirs = socket.socketpair()
try:
    host_client.ask(ours, {})
except TimeoutError as error:
    print(error)
"""


def test_one_that_can_not_be_seen_from_here_is_left_alone_and_so_are_we() -> None:
    # A session of its own, for what would be signalled is the group of who asks.
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, start_new_session=True)
    assert process.returncode == 0
    assert "the run host (process 0) said nothing" in process.stdout
