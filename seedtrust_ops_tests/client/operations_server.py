"""Starts what the applications meet: a worker as production runs it, and a web server on its workspace.

What is asked of them is the tests'.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from sqlalchemy.engine import URL

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.supervisor.worker_main import WORKER_FOLDER
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, free_port, is_listening, web_server
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.databases import plain
from seedtrust_ops_tests.support.waiters import wait_until


def variables_of(home: DagsterHome, database: URL, field_key: str) -> dict[str, str]:
    """What both are told; only what a test launches runs, and the example jobs are there."""
    return {
        **home.variables,
        "DEV_ENV": "1",
        "SEEDTRUST_DATABASE_URL": plain(database),
        "SEEDTRUST_FIELD_KEY": field_key,
    }


@contextmanager
def working(home: DagsterHome, variables: Mapping[str, str], log: Path) -> Iterator[Path]:
    """`seedtrust-ops worker`, once its code server answers; yields its workspace. In the end it is told to stop."""
    workspace = home.folder / WORKER_FOLDER / "workspace.yaml"
    with _running(sys.executable, "-m", "seedtrust_ops.cli.main", "worker", variables=variables, log=log):
        wait_until(lambda: workspace.is_file() and is_listening(_port_in(workspace)), seconds=240, what="the worker")
        yield workspace


@contextmanager
def serving(workspace: Path, variables: Mapping[str, str], log: Path, *options: str) -> Iterator[str]:
    """A web server on the workspace, with more `options` than ours has; yields its address."""
    port = free_port()
    program = web_server(environment_for_child(dict(variables)), workspace, port)
    with _running(*program.command, *options, variables=variables, log=log):
        wait_until(lambda: is_listening(port), seconds=240, what="the web server")
        yield f"http://{LOOPBACK}:{port}"


def _port_in(workspace: Path) -> int:
    (entry,) = yaml.safe_load(workspace.read_text())["load_from"]
    port: int = entry["grpc_server"]["port"]
    return port


@contextmanager
def _running(*command: str, variables: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("a") as output:
        process = subprocess.Popen(
            command, env=environment_for_child(dict(variables)), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        except BaseException:
            sys.stderr.write(log.read_text())
            raise
        finally:
            process.terminate()
            process.wait(240)
