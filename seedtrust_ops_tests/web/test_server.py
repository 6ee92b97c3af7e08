"""`seedtrust-ops web` as a real process: it needs no key, answers only what it should, and serves Dagster's UI."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import pytest
from sqlalchemy.engine import URL
from starlette.routing import Route, WebSocketRoute
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.dagster_internals import WorkspaceProcessContext, create_app_from_workspace_process_context
from seedtrust_ops.supervisor.worker_stack import LOOPBACK, build_web_server, find_free_port, is_listening
from seedtrust_ops_tests.client.operations_server import run_process
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance, temporary_dagster_home
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.tiers import Resource, provides
from seedtrust_ops_tests.support.waiters import wait_until

DAGSTER_PATHS = {
    *("/", "/{path:path}", "/graphql", "/server_info"),
    # Only for paths that can be files.
    *("/logs/{path:path}", "/download_debug/{run_id:str}"),
    # Closed.
    *("/dagit_info", "/notebook", "/dagit/notebook"),
    *(f"/report_asset_{event}/{{asset_key:path}}" for event in ("materialization", "check", "observation")),
}
"""What Dagster's web server offers besides the static files of the UI. A new path needs a decision in the guard."""

RUN_OUTPUT = "3c2cf3e5-08a2-44ad-9f0e-6a6c0cb6d6d9/compute_logs/abcdefgh.err"


@pytest.fixture(scope="module")
@provides(Resource.DAEMON)
def web_server(postgres_server: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a web server without code, whose environment is Dagster's database and nothing else."""
    folder = tmp_path_factory.mktemp("web")
    workspace = folder / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    port = find_free_port()
    with temporary_dagster_home(postgres_server, folder / "home") as home:
        output = home.folder / ".seedtrust" / "dagster" / "run_output" / RUN_OUTPUT
        output.parent.mkdir(parents=True)
        output.write_text("printed by a run")
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **home.variables}
        program = build_web_server(environment, workspace, port)
        with run_process(*program.command, environment=environment, log=folder / "log"):
            wait_until(lambda: is_listening(port), seconds=240, what="the web server")
            yield f"http://{LOOPBACK}:{port}"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/logs/..%2f..%2fdagster.yaml",
            "/logs/..%2f..%2f..%2f..%2fetc%2fpasswd",
            "/logs//etc/passwd",
            "/logs/a%00/out",
        ),
        *("/logs/out", "/logs/a/b/out", "/download_debug/x"),
    ],
)
def test_path_without_a_file_is_not_found(web_server: str, path: str) -> None:
    assert httpx.get(web_server + path, timeout=60).status_code == 404


def test_run_output_can_be_downloaded(web_server: str) -> None:
    reply = httpx.get(f"{web_server}/logs/{RUN_OUTPUT.replace('.', '/')}", timeout=60)
    assert (reply.status_code, reply.text) == (200, "printed by a run")


def test_ui_is_served_without_any_key(web_server: str) -> None:
    page = httpx.get(f"{web_server}/runs", timeout=60)
    assert page.status_code == 200
    assert page.text.startswith("<!DOCTYPE html>")
    policies = page.headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policies
    assert any("script-src 'nonce-" in policy for policy in policies)
    reply = httpx.post(f"{web_server}/graphql", json={"query": "{ version }"}, timeout=60).json()
    assert reply == {"data": {"version": dg.__version__}}


def test_refusal_of_a_foreign_host_says_what_to_do(web_server: str) -> None:
    reply = httpx.get(web_server, headers={"Host": "foreign.example"}, timeout=60)
    assert reply.status_code == 400
    assert "SEEDTRUST_WEB_HOSTS" in reply.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "mutation",
    [
        'reportRunlessAssetEvents(eventParams: {eventType: ASSET_MATERIALIZATION, assetKey: {path: ["balances"]}})',
        'reportAssetCheckEvaluations(eventParams: {assetKey: {path: ["balances"]}, checkName: "x", passed: true})',
    ],
)
def test_invented_asset_event_is_refused(web_server: str, mutation: str) -> None:
    query = f"mutation {{ {mutation} {{ __typename }} }}"
    reply = httpx.post(f"{web_server}/graphql", json={"query": query}, timeout=60).json()
    assert reply["data"] == {mutation.partition("(")[0]: {"__typename": "UnauthorizedError"}}


def test_every_path_of_dagster_has_a_decision(dagster_home: DagsterHome) -> None:
    with open_instance(dagster_home) as instance, WorkspaceProcessContext(instance, None) as process:
        routes = create_app_from_workspace_process_context(process).routes
    files = {route.path for route in routes if isinstance(route, Route) and route.name == "root_static"}
    paths = {route.path for route in routes if isinstance(route, Route | WebSocketRoute)}
    assert paths - files == DAGSTER_PATHS


def test_missing_workspace_is_explained(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["web", "--workspace", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "Start `seedtrust-ops worker`" in result.output


def test_missing_dagster_home_is_explained(tmp_path: Path, set_variables: SetVariables) -> None:
    set_variables(DAGSTER_HOME=None)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    result = CliRunner().invoke(app, ["web", "--workspace", str(workspace)])
    assert result.exit_code == 1
    assert "Set it to the worker's folder" in " ".join(result.output.split())
