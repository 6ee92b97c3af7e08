"""A process that cannot be forked safely says why, and a fork inherits no descriptor from its parent."""

import subprocess
import sys

import pytest

GRPC = "import grpc; kept = grpc.insecure_channel('127.0.0.1:1'); kept.subscribe(print, True); time.sleep(1)"
CHECK = """
import os, socket, threading, time
from seedtrust_ops.launcher.forking import find_fork_obstacle
own = os.open("/dev/null", os.O_RDONLY)
{before}
print(find_fork_obstacle(allowed_descriptor=own))
"""
DESCRIPTORS = """
import os
from pathlib import Path
from seedtrust_ops.launcher.forking import fork_detached


def descriptors():
    numbers = os.listdir("/proc/self/fd")
    # Without the one that listed them, which is closed by now.
    return sorted(int(number) for number in numbers if Path(f"/proc/self/fd/{number}").exists())


def report():
    print("forked", descriptors(), flush=True)
    return 0


def refuse():
    raise BlockingIOError("no more processes")


print("before", descriptors(), flush=True)
"""
FORK = "fork_detached(report)\n"
FAILING_FORK = """
os.fork = refuse
try:
    fork_detached(report)
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
    ids=["nothing", "file", "thread", "socket", "pipe", "selector", "gRPC channel"],
)
@pytest.mark.usefixtures("child_processes")
def test_fork_obstacle_is_named(before: str, reason: str) -> None:
    # os._exit, because a thread that never ends would keep the program running.
    output = run(CHECK.format(before=before) + "import sys; sys.stdout.flush(); os._exit(0)\n")
    assert reason in output


@pytest.mark.usefixtures("child_processes")
@pytest.mark.parametrize(("fork", "label"), [(FORK, "forked"), (FAILING_FORK, "refused")], ids=["fork", "refused fork"])
def test_fork_leaves_no_descriptor_open(fork: str, label: str) -> None:
    descriptors = dict(line.split(" ", 1) for line in run(DESCRIPTORS + fork).splitlines())
    assert descriptors == {"before": "[0, 1, 2]", label: "[0, 1, 2]"}
