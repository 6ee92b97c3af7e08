"""The supervisor starts again what dies, and whoever dies, nothing that it started is left behind."""

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
from seedtrust_ops.supervisor.process_guard import CHILD_CHECK_SECONDS, LOOK_SECONDS
from seedtrust_ops.supervisor.program import KeptRun, Program
from seedtrust_ops.supervisor.supervisor import Supervisor
from seedtrust_ops_tests.support.waiters import wait_until

# Two levels of children: the script's own, and one of a child that has died.
FAMILY = "sleep 1000 & (sleep 1000 &) ; echo started $$; exec sleep 1000"


def program(script: str, *, stop_seconds: float = 2.0, **more: object) -> Program:
    return Program(
        name="script",
        command=("sh", "-c", script),
        environment=dict(os.environ),
        stop_seconds=stop_seconds,
        **more,  # type: ignore[arg-type]
    )


class Said:
    """What programs said, and the pids that the family told of."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")

    @property
    def pids(self) -> list[int]:
        return [int(line.rsplit(" ", 1)[1]) for line in self.lines if "started " in line and "again" not in line]


@contextmanager
def supervised(*programs: Program) -> Iterator[tuple[Supervisor, Said]]:
    said = Said()
    stop = threading.Event()
    supervisor = Supervisor(programs, said)
    thread = threading.Thread(target=supervisor.run, args=(stop,))
    thread.start()
    try:
        yield supervisor, said
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def session_of(pid: int) -> Callable[[], list[int]]:
    """Return what lists the living processes of the session in which `pid` is."""
    session = os.getsid(pid)

    def living() -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    return living


def test_a_killed_child_is_started_again_and_its_family_is_gone() -> None:
    with supervised(program(FAMILY)) as (_, said):
        wait_until(lambda: said.pids, what="the first start")
        first = said.pids[0]
        living = session_of(first)
        wait_until(lambda: len(living()) == 4, what="keeper, script and two sleepers")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(said.pids) == 2, what="the second start")
        assert living() == []
        assert any("ended with code 137" in line for line in said.lines)
        second = session_of(said.pids[1])
    wait_until(lambda: second() == [], what="the end of the second family")


def test_a_killed_keeper_leaves_no_family() -> None:
    with supervised(program(FAMILY)) as (_, said):
        wait_until(lambda: said.pids)
        living = session_of(said.pids[0])
        os.kill(os.getsid(said.pids[0]), signal.SIGKILL)
        wait_until(lambda: len(said.pids) == 2, what="the second start")
        assert living() == []


@pytest.mark.parametrize("let_go", [True, False], ids=["that finish", "until told to stop"])
def test_children_of_a_killed_process_that_may_finish_are_waited_for(tmp_path: Path, let_go: bool) -> None:
    go, finished = tmp_path / "go", tmp_path / "finished"
    child = f"while ! test -e {go}; do sleep 0.05; done; touch {finished}"
    script = f"({child}) & echo started $$; exec sleep 1000"
    with supervised(program(script, stop_seconds=1000.0, children_may_finish=True)) as (_, said):
        wait_until(lambda: said.pids, what="the first start")
        killed = said.pids[0]
        living = session_of(killed)
        keeper = psutil.Process(os.getsid(killed))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(killed), what="the keeper to have noticed")
        # Each of its turns is one sleep.
        waited = keeper.num_ctx_switches().voluntary + 2
        wait_until(lambda: keeper.num_ctx_switches().voluntary > waited, what="the keeper to wait")
        assert len(living()) > 1
        if let_go:
            go.touch()
            wait_until(lambda: len(said.pids) == 2, what="the second start")
    assert finished.exists() == let_go
    assert living() == []


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_supervisor(sign: signal.Signals) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops_tests.supervisor.shell_supervisor", FAMILY],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        pid = int(supervisor.stdout.readline().rsplit(" ", 1)[1])
        living = session_of(pid)
        wait_until(lambda: len(living()) == 4)
        supervisor.send_signal(sign)
        assert supervisor.wait(120) == (-sign if sign is signal.SIGKILL else 0)
        wait_until(lambda: living() == [], what="the end of the family")


def test_programs_are_kept_though_nobody_takes_what_is_printed(tmp_path: Path) -> None:
    said_all = tmp_path / "said_all"
    # It says more than a pipe holds, so that one that is not read stops it.
    script = f"seq 20000 && echo yes >> {said_all}; exit 3"
    with Path("/dev/full").open("w") as full:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "seedtrust_ops_tests.supervisor.shell_supervisor", script], stdout=full
        )
    try:
        wait_until(lambda: said_all.exists() and len(said_all.read_text().split()) >= 2, what="two whole lives")
        assert supervisor.poll() is None
    finally:
        supervisor.terminate()
        supervisor.wait(120)


def test_a_stubborn_process_is_killed_after_its_deadline() -> None:
    stubborn = program("trap '' TERM; echo started $$; while :; do sleep 1; done", stop_seconds=0.5)
    with supervised(stubborn) as (_, said):
        wait_until(lambda: said.pids)
        living = session_of(said.pids[0])
    assert living() == []


def test_a_process_that_lost_the_child_it_needs_is_started_again() -> None:
    script = (
        "import os, signal, subprocess; subprocess.Popen(['sleep', '1000']); print('started', os.getpid(), flush=True)"
    )
    needy = Program(
        name="script",
        command=(sys.executable, "-c", f"{script}; signal.pause()"),
        environment=dict(os.environ),
        stop_seconds=1,
        needs_child=True,
    )
    with supervised(needy) as (_, said):
        wait_until(lambda: said.pids)
        (child,) = psutil.Process(said.pids[0]).children()
        # The keeper can miss a child only when it has looked since the child was born, and it may be the slow one:
        # each of its turns is one sleep.
        keeper = psutil.Process(os.getsid(said.pids[0]))
        looked = keeper.num_ctx_switches().voluntary + 1.75 * CHILD_CHECK_SECONDS / LOOK_SECONDS
        wait_until(lambda: keeper.num_ctx_switches().voluntary > looked, what="the keeper's look")
        child.kill()
        wait_until(lambda: len(said.pids) == 2, what="the second start")


def test_later_programs_wait_until_earlier_ones_are_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = program("echo started $$; exec sleep 1000", is_ready=ready.exists)
    with supervised(first, program("echo started $$; exec sleep 1000")) as (supervisor, said):
        wait_until(lambda: said.pids)
        assert not supervisor.all_ready.wait(0.6)
        assert len(said.pids) == 1
        ready.touch()
        assert supervisor.all_ready.wait(60)
        wait_until(lambda: len(said.pids) == 2)


def test_one_worker_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as impatient:
        impatient.setattr(worker_stack, "LOCK_SECONDS", 0.3)
        with worker_stack.only_worker(tmp_path) as lock:
            kept = KeptRun(program("exec sleep 1000"), Said(), lock=lock)
            with (
                pytest.raises(worker_stack.AnotherWorker, match=f"process {os.getpid()}"),
                worker_stack.only_worker(tmp_path),
            ):
                pass
        # The supervisor is gone, but its process lives: still nobody else may start one.
        with pytest.raises(worker_stack.AnotherWorker), worker_stack.only_worker(tmp_path):
            pass
    kept.stop()
    with worker_stack.only_worker(tmp_path):
        pass
