"""A process that a fork would tear is not forked, and says why; what is forked holds nothing of its parent's."""

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
DESCRIPTORS = """
import os
from pathlib import Path
from seedtrust_ops.launcher.forking import fork_orphan


def descriptors():
    numbers = os.listdir("/proc/self/fd")
    # All but the one that listed them, which is closed.
    return sorted(int(number) for number in numbers if Path(f"/proc/self/fd/{number}").exists())


def tell():
    print("forked", descriptors(), flush=True)
    return 0


def refuse():
    raise BlockingIOError("no room for another process")


print("before", descriptors(), flush=True)
"""
FORK = "fork_orphan(tell)\n"
FORK_IN_VAIN = """
os.fork = refuse
try:
    fork_orphan(tell)
except BlockingIOError:
    print("refused", descriptors())
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


@pytest.mark.parametrize(
    ("fork", "said_by"), [(FORK, "forked"), (FORK_IN_VAIN, "refused")], ids=["a fork", "a refused one"]
)
def test_no_descriptor_of_forking_stays_open(fork: str, said_by: str) -> None:
    said = dict(line.split(" ", 1) for line in run(DESCRIPTORS + fork).splitlines())
    assert said == {"before": "[0, 1, 2]", said_by: "[0, 1, 2]"}
