"""A real daemon and code server for the quick jobs, in a DAGSTER_HOME with the project's dagster.yaml.

The tests use it to submit runs, kill processes and change the code.
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
from seedtrust_ops.launcher.worker_identity import WorkerIdentity
from seedtrust_ops.supervisor.worker_stack import (
    find_free_port,
    is_listening,
    prepare_code_server_socket,
    write_workspace,
)
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.run_submission import submit_runs
from seedtrust_ops_tests.support.waiters import wait_until

JOBS_FILE = Path(__file__).with_name("quick_jobs.py")
QUICK_CODE = '{definitions: "quick_jobs:definitions"}'
LAUNCHER = """run_launcher:
  module: seedtrust_ops.launcher.warm_run_launcher
  class: WarmRunLauncher
  config: {}
"""


class QuickDaemon:
    """The processes, and the runs that the tests submit to them."""

    def __init__(self, home: DagsterHome, instance: dg.DagsterInstance) -> None:
        self.home = home
        self.instance = instance
        self.code = home.folder / "code"
        self.log = home.folder / "processes.log"
        self.socket = prepare_code_server_socket(home.folder)
        self.web_port = find_free_port()
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
                *("dagster", "code-server", "start", "-m", "quick_jobs", "-d", str(self.code)),
                *("--socket", str(self.socket), "--location-name", "quick", "--log-level", "warning"),
            ),
            "daemon": ("dagster._daemon", "run", "--workspace", str(self.workspace)),
            "fast-daemon": ("seedtrust_ops.supervisor.fast_daemon", "--workspace", str(self.workspace)),
            "web-server": (
                *("seedtrust_ops.cli.main", "web", "--workspace", str(self.workspace)),
                *("--port", str(self.web_port)),
            ),
        }
        with self.log.open("a") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", *commands[name]],
                cwd=self.code,
                env=environment_for_child(self.home.variables | {"REPORTED_VARIABLE": "from the daemon"}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_all(self, daemon: str = "daemon") -> None:
        """Start the code server and the daemon, Dagster's or the `fast-daemon`."""
        self.start("code-server")
        wait_until(lambda: is_listening(self.socket), seconds=120, what="the code server")
        self.start(daemon)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the signal to one of the processes, and wait until it has exited."""
        process = self._processes.pop(name)
        process.send_signal(number)
        process.wait(120)

    def stop(self) -> None:
        """Stop all processes, the last one started first."""
        for name in reversed(list(self._processes)):
            self.kill(name, signal.SIGTERM)

    def submit(self, job: str, count: int = 1, *, run_config: Mapping[str, Any] | None = None) -> list[str]:
        """Queue runs of the job; return their ids."""
        with WorkspaceProcessContext(self.instance, self._target()) as process:
            return submit_runs(self.instance, process.create_request_context(), "quick", job, run_config or {}, count)

    def _target(self) -> GrpcServerTarget:
        return GrpcServerTarget(host="localhost", port=None, socket=str(self.socket), location_name="quick")

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def wait_for(self, run_id: str, *statuses: dg.DagsterRunStatus, seconds: float = 180) -> None:
        """Wait until the run has one of the statuses."""
        wait_until(lambda: self.status(run_id) in statuses, seconds=seconds, every=0.05, what=f"run {run_id}")

    def worker(self, run_id: str) -> WorkerIdentity:
        """Wait until the run's worker has tagged the run; return the worker."""

        def find_worker() -> WorkerIdentity | None:
            run = self.instance.get_run_by_id(run_id)
            assert run is not None
            return WorkerIdentity.from_tags(run.tags)

        wait_until(find_worker, seconds=120, what=f"a worker for run {run_id}")
        worker = find_worker()
        assert worker is not None
        return worker

    def start_event(self, run_id: str) -> str:
        """Wait for the launcher's event about the run's start, which can come after the run's end; return its text."""

        def find_events() -> list[str]:
            return [text for text in self.event_messages(run_id) if "Warm start" in text or "Cold start" in text]

        wait_until(find_events, seconds=120, what=f"the launcher's event for run {run_id}")
        (message,) = find_events()
        return message

    def event_messages(self, run_id: str) -> list[str]:
        """The messages of the run's events."""
        entries = self.instance.all_logs(run_id)
        return [entry.dagster_event.message or "" for entry in entries if entry.dagster_event is not None]

    def find_processes(self, *arguments: str) -> list[psutil.Process]:
        """The running processes with this DAGSTER_HOME in their environment and `arguments` in their command line."""
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                has_this_home = process.environ().get("DAGSTER_HOME") == str(self.home.folder)
                is_running = process.status() != psutil.STATUS_ZOMBIE
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if (
                has_this_home
                and is_running
                and process.pid != os.getpid()
                and all(argument in command for argument in arguments)
            ):
                found.append(process)
        return found

    @property
    def run_host(self) -> psutil.Process:
        found: list[psutil.Process] = []

        def is_alone() -> bool:
            # A process that it is starting has the same command line for a moment.
            found[:] = self.find_processes("seedtrust_ops.launcher.run_host")
            return len(found) == 1

        wait_until(is_alone, what="one run host")
        return found[0]

    @property
    def zygotes(self) -> list[psutil.Process]:
        """The zygotes without the runs forked from them, which have the same command line."""
        return [process for process in self.find_processes("seedtrust_ops.launcher.zygote") if not _is_run(process)]


def change_settings(home: DagsterHome, old: str, new: str) -> None:
    """Change the home's dagster.yaml before any process reads it."""
    settings = home.folder / "dagster.yaml"
    text = settings.read_text()
    assert old in text
    settings.write_text(text.replace(old, new))


def use_quick_jobs(home: DagsterHome) -> None:
    """Let the home's processes load the quick jobs, and run as many at a time as this project's; before any starts."""
    change_settings(home, "class: PostgresStorage\n    config: {}", f"class: PostgresStorage\n    config: {QUICK_CODE}")
    # The default launcher's settings are written with sorted keys.
    settings = (home.folder / "dagster.yaml").read_text()
    in_file, is_sorted = ("value: unlisted jobs\n        limit: 5", "limit: 5\n      value: unlisted jobs")
    limit = in_file if in_file in settings else is_sorted
    change_settings(home, limit, limit.replace("limit: 5", "limit: 10"))


@contextmanager
def quick_daemon(home: DagsterHome, instance: dg.DagsterInstance, program: str = "daemon") -> Iterator[QuickDaemon]:
    """Run the code server and a daemon; at the end stop them and everything that they started.

    The home's settings must allow the quick jobs (`use_quick_jobs`).
    """
    daemon = QuickDaemon(home, instance)
    daemon.code.mkdir()
    shutil.copy(JOBS_FILE, daemon.code / "quick_jobs.py")
    with ExitStack() as stack:
        stack.callback(_kill_remaining_processes, daemon)
        stack.callback(daemon.stop)
        workspace = write_workspace(home.folder, daemon.socket)
        workspace.write_text(workspace.read_text().replace("seedtrust_ops", "quick"))
        daemon.start_all(program)
        try:
            yield daemon
        except BaseException:
            sys.stderr.write(daemon.log.read_text())
            for log in daemon.launcher_folder.glob("*.log"):
                sys.stderr.write(log.read_text())
            raise


def _is_run(process: psutil.Process) -> bool:
    """Return whether it leads its own process group, as runs do, or has exited, as they do soon after they succeed."""
    try:
        return os.getpgid(process.pid) == process.pid
    except ProcessLookupError:
        return True


def _kill_remaining_processes(daemon: QuickDaemon) -> None:
    for process in daemon.find_processes():
        process.kill()
