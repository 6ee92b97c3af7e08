"""A real daemon and code server over the quick jobs, at a DAGSTER_HOME with the project's dagster.yaml.

What the tests do with it is theirs: submit runs, kill processes, change the code.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.launcher.worker_identity import WorkerProcess
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, free_port, is_listening, write_workspace
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.launches import submit
from seedtrust_ops_tests.support.waiters import wait_until

JOBS = Path(__file__).with_name("quick_jobs.py")
LAUNCHER = """run_launcher:
  module: seedtrust_ops.launcher.warm_run_launcher
  class: WarmRunLauncher
  config: {}
"""


class QuickDaemon:
    """The processes, and the runs that the tests give them."""

    def __init__(self, home: DagsterHome, instance: dg.DagsterInstance) -> None:
        self.home = home
        self.instance = instance
        self.code = home.folder / "code"
        self.log = home.folder / "processes.log"
        self.port = free_port()
        self.web_port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def workspace(self) -> Path:
        return self.home.folder / "workspace.yaml"

    @property
    def launcher_folder(self) -> Path:
        return self.home.folder / ".seedtrust" / "launcher"

    def start(self, name: str) -> None:
        """Start the `code-server`, the `daemon` or the `web-server`."""
        commands = {
            "code-server": (
                *("dagster", "code-server", "start", "-m", "quick_jobs", "-d", str(self.code), "--host", LOOPBACK),
                *("--port", str(self.port), "--location-name", "quick", "--log-level", "warning"),
            ),
            "daemon": ("dagster._daemon", "run", "--workspace", str(self.workspace)),
            "web-server": (
                *("dagster_webserver", "--workspace", str(self.workspace), "--host", LOOPBACK),
                *("--port", str(self.web_port)),
            ),
        }
        with self.log.open("a") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *commands[name]],
                cwd=self.code,
                env=environment_for_child(self.home.variables | {"MARK": "from the daemon"}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_all(self) -> None:
        """Start both."""
        self.start("code-server")
        wait_until(lambda: is_listening(self.port), seconds=120, what="the code server")
        self.start("daemon")

    def kill(self, name: str, sign: signal.Signals = signal.SIGKILL) -> None:
        """End one of them, and wait until it is gone."""
        process = self._processes.pop(name)
        process.send_signal(sign)
        process.wait(120)

    def stop(self) -> None:
        """End whatever runs, the daemon first."""
        for name in reversed(list(self._processes)):
            self.kill(name, signal.SIGTERM)

    def submit(self, job: str, count: int = 1, *, run_config: Mapping[str, Any] | None = None) -> list[str]:
        """Put runs of the job into the queue; return their ids."""
        with WorkspaceProcessContext(self.instance, self._target()) as process:
            return submit(self.instance, process.create_request_context(), "quick", job, run_config or {}, count)

    def _target(self) -> GrpcServerTarget:
        return GrpcServerTarget(host=LOOPBACK, port=self.port, socket=None, location_name="quick")

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def wait_for(self, run_id: str, *statuses: dg.DagsterRunStatus, seconds: float = 180) -> None:
        """Wait until the run has one of the statuses."""
        wait_until(lambda: self.status(run_id) in statuses, seconds=seconds, every=0.05, what=f"run {run_id}")

    def worker(self, run_id: str) -> WorkerProcess:
        """The run's worker, once it has put its name there."""

        def named() -> WorkerProcess | None:
            run = self.instance.get_run_by_id(run_id)
            assert run is not None
            return WorkerProcess.of(run.tags)

        wait_until(named, seconds=120, what=f"a worker of run {run_id}")
        worker = named()
        assert worker is not None
        return worker

    def how_started(self, run_id: str) -> str:
        """What the launcher said of the run, which it does once it knows; the run may be over by then."""

        def said() -> list[str]:
            return [text for text in self.said_of(run_id) if "was forked" in text or "was started cold" in text]

        wait_until(said, seconds=120, what=f"the launcher's word on run {run_id}")
        (sentence,) = said()
        return sentence

    def said_of(self, run_id: str) -> list[str]:
        """What Dagster's history has of the run, in words."""
        entries = self.instance.all_logs(run_id)
        return [entry.dagster_event.message or "" for entry in entries if entry.dagster_event is not None]

    def family(self, *words: str) -> list[psutil.Process]:
        """The living processes that have this home in their environment or command, and `words` in their command."""
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                ours = process.environ().get("DAGSTER_HOME") == str(self.home.folder)
                alive = process.status() != psutil.STATUS_ZOMBIE
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if ours and alive and process.pid != os.getpid() and all(word in command for word in words):
                found.append(process)
        return found

    @property
    def run_host(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def is_alone() -> bool:
            # What it is about to start bears its name for a moment.
            found[:] = self.family("seedtrust_ops.launcher.run_host")
            return len(found) == 1

        wait_until(is_alone, what="one run host")
        return found[0]

    @property
    def zygotes(self) -> list[psutil.Process]:
        """The zygotes alone; what was forked of one has its command line too."""
        return [process for process in self.family("seedtrust_ops.launcher.zygote") if not _is_run(process)]


def change_settings(home: DagsterHome, old: str, new: str) -> None:
    """Change the home's dagster.yaml, before anything reads it."""
    settings = home.folder / "dagster.yaml"
    text = settings.read_text()
    assert old in text
    settings.write_text(text.replace(old, new))


@contextmanager
def quick_daemon(home: DagsterHome, instance: dg.DagsterInstance) -> Iterator[QuickDaemon]:
    """Run both; in the end stop them and leave nothing that they started."""
    daemon = QuickDaemon(home, instance)
    daemon.code.mkdir()
    shutil.copy(JOBS, daemon.code / "quick_jobs.py")
    with ExitStack() as stack:
        stack.callback(_kill_what_is_left, daemon)
        stack.callback(daemon.stop)
        workspace = write_workspace(home.folder, daemon.port)
        workspace.write_text(workspace.read_text().replace("seedtrust_ops", "quick"))
        daemon.start_all()
        try:
            yield daemon
        except BaseException:
            sys.stderr.write(daemon.log.read_text())
            for log in daemon.launcher_folder.glob("*.log"):
                sys.stderr.write(log.read_text())
            raise


def _is_run(process: psutil.Process) -> bool:
    """Return whether it leads a group of its own, as runs do, or is gone, as they are soon after their success."""
    try:
        return os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return True


def _kill_what_is_left(daemon: QuickDaemon) -> None:
    for process in daemon.family():
        process.kill()
