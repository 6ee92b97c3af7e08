"""A process that a fork would tear is not forked, and says why."""

import subprocess
import sys

import pytest

GRPC = "import grpc; kept = grpc.insecure_channel('127.0.0.1:1'); kept.subscribe(print, True); time.sleep(1)"
JUDGE = """
import os, socket, threading, time
from seedtrust_ops.launcher.forking import reason_not_to_fork
own = os.open("/dev/null", os.O_RDONLY)
{before}
print(reason_not_to_fork(own=own))
"""


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("pass", "None"),
        ("file = open(__file__ if '__file__' in globals() else os.devnull)", "None"),
        ("threading.Thread(target=time.sleep, args=(1000,), name='idler', daemon=True).start()", "idler"),
        ("kept = socket.socketpair()", "socket:"),
        ("kept = os.pipe()", "pipe:"),
        ("import select; kept = select.epoll()", "anon_inode:[eventpoll]"),
        (GRPC, "loading the code "),
    ],
    ids=["nothing", "a file", "a thread", "a socket", "a pipe", "a selector", "a gRPC channel"],
)
def test_what_a_fork_would_share_or_lose_is_named(before: str, reason: str) -> None:
    # Threads that never end must not keep the program from ending.
    said = run(JUDGE.format(before=before) + "import sys; sys.stdout.flush(); os._exit(0)\n")
    assert reason in said
