"""Starts the servers that the client calls: a worker as in production, and a web server on its workspace."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from sqlalchemy.engine import URL

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, build_web_server, find_free_port, is_listening
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.databases import plain_url
from seedtrust_ops_tests.support.waiters import wait_until


def server_variables(home: DagsterHome, database: URL, field_key: str) -> dict[str, str]:
    """The environment of both. With DEV_ENV=1 only the tests launch runs, and the example jobs exist."""
    return {
        **home.variables,
        "DEV_ENV": "1",
        "SEEDTRUST_DATABASE_URL": plain_url(database),
        "SEEDTRUST_FIELD_KEY": field_key,
    }


@contextmanager
def run_worker(home: DagsterHome, variables: Mapping[str, str], log: Path) -> Iterator[Path]:
    """Run `seedtrust-ops worker`; yield its workspace once its code server responds."""
    workspace = home.folder / WORKER_FOLDER / "workspace.yaml"
    environment = environment_for_child(variables)
    with run_process(sys.executable, "-m", "seedtrust_ops.cli.main", "worker", environment=environment, log=log):
        wait_until(
            lambda: workspace.is_file() and is_listening(_code_server_socket(workspace)), seconds=240, what="the worker"
        )
        yield workspace


@contextmanager
def run_web_server(workspace: Path, variables: Mapping[str, str], log: Path, *options: str) -> Iterator[str]:
    """Run a web server on the workspace with additional `options`; yield its URL."""
    port = find_free_port()
    program = build_web_server(environment_for_child(variables), workspace, port)
    with run_process(*program.command, *options, environment=program.environment, log=log):
        wait_until(lambda: is_listening(port), seconds=240, what="the web server")
        yield f"http://{LOOPBACK}:{port}"


def _code_server_socket(workspace: Path) -> Path:
    (entry,) = yaml.safe_load(workspace.read_text())["load_from"]
    return Path(entry["grpc_server"]["socket"])


@contextmanager
def run_process(*command: str, environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a server until the block ends; if the block fails, print the log."""
    with log.open("a") as output:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.terminate()
            process.wait(240)
