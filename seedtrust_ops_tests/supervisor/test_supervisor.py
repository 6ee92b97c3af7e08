"""The supervisor restarts programs that crash, and whatever is killed, no process that it started is left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from seedtrust_ops.supervisor import worker_stack
from seedtrust_ops.supervisor.process_guard import CHILD_CHECK_SECONDS, POLL_SECONDS
from seedtrust_ops.supervisor.program import GuardedProcess, Program
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.usefixtures("child_processes")

# Two levels of children: the script's own child, and the child of a child that has exited.
PROCESS_TREE = "sleep 1000 & (sleep 1000 &) ; echo started $$; exec sleep 1000"


def program(script: str, *, stop_seconds: float = 2.0, **more: object) -> Program:
    return Program(
        name="script",
        command=("sh", "-c", script),
        environment=dict(os.environ),
        stop_seconds=stop_seconds,
        **more,  # type: ignore[arg-type]
    )


class OutputRecorder:
    """Records what programs printed, and the pids in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")

    @property
    def pids(self) -> list[int]:
        return [int(line.rsplit(" ", 1)[1]) for line in self.lines if "started " in line]


@contextmanager
def supervised(*programs: Program) -> Iterator[tuple[Supervisor, OutputRecorder]]:
    output = OutputRecorder()
    stop = threading.Event()
    supervisor = Supervisor(programs, output)
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        yield supervisor, output
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def session_of(pid: int) -> Callable[[], list[int]]:
    """Return a function that lists the running processes of the session of `pid`."""
    session = os.getsid(pid)

    def list_running() -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    return list_running


def test_killed_program_is_restarted_and_leaves_no_children() -> None:
    with supervised(program(PROCESS_TREE)) as (_, output):
        wait_until(lambda: output.pids, what="the first start")
        first = output.pids[0]
        list_session = session_of(first)
        wait_until(lambda: len(list_session()) == 4, what="guard, script and two children")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(output.pids) == 2, what="the second start")
        assert list_session() == []
        assert any("Exited with code 137" in line for line in output.lines)
        second = session_of(output.pids[1])
    wait_until(lambda: second() == [], what="the second session to end")


def test_killed_guard_leaves_no_children() -> None:
    with supervised(program(PROCESS_TREE)) as (_, output):
        wait_until(lambda: output.pids)
        list_session = session_of(output.pids[0])
        os.kill(os.getsid(output.pids[0]), signal.SIGKILL)
        wait_until(lambda: len(output.pids) == 2, what="the second start")
        assert list_session() == []


@pytest.mark.parametrize("finishes", [True, False], ids=["until they finish", "until shutdown"])
def test_children_that_may_finish_delay_the_restart(tmp_path: Path, finishes: bool) -> None:
    go, finished = tmp_path / "go", tmp_path / "finished"
    child = f"while ! test -e {go}; do sleep 0.05; done; touch {finished}"
    script = f"({child}) & echo started $$; exec sleep 1000"
    with supervised(program(script, stop_seconds=1000.0, children_may_finish=True)) as (_, output):
        wait_until(lambda: output.pids, what="the first start")
        killed = output.pids[0]
        list_session = session_of(killed)
        guard = psutil.Process(os.getsid(killed))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(killed), what="the guard to reap the program")
        # Each poll of the guard is one sleep.
        waited = guard.num_ctx_switches().voluntary + 2
        wait_until(lambda: guard.num_ctx_switches().voluntary > waited, what="the guard to poll")
        assert len(list_session()) > 1
        if finishes:
            go.touch()
            wait_until(lambda: len(output.pids) == 2, what="the second start")
    assert finished.exists() == finishes
    assert list_session() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_supervisor_leaves_no_process_when_it_stops(number: signal.Signals) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops_tests.supervisor.supervisor_process", PROCESS_TREE],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        pid = int(supervisor.stdout.readline().rsplit(" ", 1)[1])
        list_session = session_of(pid)
        wait_until(lambda: len(list_session()) == 4)
        supervisor.send_signal(number)
        assert supervisor.wait(120) == (-number if number is signal.SIGKILL else 0)
        wait_until(lambda: list_session() == [], what="the session to end")


def test_programs_keep_running_if_output_cannot_be_written(tmp_path: Path) -> None:
    printed_all = tmp_path / "printed_all"
    # It prints more than a pipe holds, so a pipe that is not read would block it.
    script = f"seq 20000 && echo yes >> {printed_all}; exit 3"
    with Path("/dev/full").open("w") as full:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops_tests.supervisor.supervisor_process", script], stdout=full
        )
    try:
        wait_until(lambda: printed_all.exists() and len(printed_all.read_text().split()) >= 2, what="two complete runs")
        assert supervisor.poll() is None
    finally:
        supervisor.terminate()
        supervisor.wait(120)


def test_process_that_ignores_sigterm_is_killed_after_its_stop_time() -> None:
    program_ignoring_sigterm = program("trap '' TERM; echo started $$; while :; do sleep 1; done", stop_seconds=0.5)
    with supervised(program_ignoring_sigterm) as (_, output):
        wait_until(lambda: output.pids)
        list_session = session_of(output.pids[0])
    assert list_session() == []


def test_program_that_lost_its_needed_child_is_restarted() -> None:
    script = (
        "import os, signal, subprocess; subprocess.Popen(['sleep', '1000']); print('started', os.getpid(), flush=True)"
    )
    parent = Program(
        name="script",
        command=(sys.executable, "-c", f"{script}; signal.pause()"),
        environment=dict(os.environ),
        stop_seconds=1,
        needs_child=True,
    )
    with supervised(parent) as (_, output):
        wait_until(lambda: output.pids)
        (child,) = psutil.Process(output.pids[0]).children()
        # The guard can notice a lost child only if it checked while the child was running, and the guard may be slow:
        # each of its polls is one sleep.
        guard = psutil.Process(os.getsid(output.pids[0]))
        checked = guard.num_ctx_switches().voluntary + 1.75 * CHILD_CHECK_SECONDS / POLL_SECONDS
        wait_until(lambda: guard.num_ctx_switches().voluntary > checked, what="the guard to check for children")
        child.kill()
        wait_until(lambda: len(output.pids) == 2, what="the second start")


def test_program_waits_until_earlier_programs_are_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = program("echo started $$; exec sleep 1000", is_ready=ready.exists)
    with supervised(first, program("echo started $$; exec sleep 1000")) as (supervisor, output):
        wait_until(lambda: output.pids)
        assert not supervisor.all_ready.wait(0.6)
        assert len(output.pids) == 1
        ready.touch()
        assert supervisor.all_ready.wait(60)
        wait_until(lambda: len(output.pids) == 2)


def test_second_worker_of_a_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(worker_stack, "LOCK_TIMEOUT_SECONDS", 0.3)
        with worker_stack.hold_worker_lock(tmp_path) as lock:
            guarded = GuardedProcess(program("exec sleep 1000"), OutputRecorder(), lock=lock)
            with (
                pytest.raises(worker_stack.WorkerAlreadyRunning, match=f"process {os.getpid()}"),
                worker_stack.hold_worker_lock(tmp_path),
            ):
                pass
        # The supervisor is gone but its process is running, so no other worker may start yet.
        with pytest.raises(worker_stack.WorkerAlreadyRunning), worker_stack.hold_worker_lock(tmp_path):
            pass
    guarded.stop()
    with worker_stack.hold_worker_lock(tmp_path):
        pass
