"""The client with Dagster's real web server and daemon: launched jobs run, and run states agree with JobRun."""

import asyncio
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.test_utils import create_run_for_test
from fastapi.testclient import TestClient
from sqlalchemy import make_url, select

import seedtrust_ops
from seedtrust_ops.client import (
    AsyncOpsClient,
    InvalidConfig,
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    OpsClient,
    RunAlreadyFinished,
    RunStarting,
    RunState,
    RunStatus,
    SeedTrustError,
    UnknownJob,
    UnknownRun,
)
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.supervisor.worker_stack import write_workspace
from seedtrust_ops.tables import JobRun, ReportRequest
from seedtrust_ops.tag_names import REQUEST_TAG
from seedtrust_ops_tests.client.conftest import OperationsServer
from seedtrust_ops_tests.client.operations_server import run_web_server
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.http_stubs import response_dropping_proxy
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)  # the first test waits for the worker and the web server to start
LONG = {"steps": 1000, "seconds_per_step": 1}


def wait_for_state(operations: OpsClient, run_id: str, condition: Callable[[RunState], bool], what: str) -> RunState:
    states: list[RunState] = []

    def is_met() -> bool:
        states.append(operations.job_run(run_id))
        return condition(states[-1])

    wait_until(is_met, seconds=240, every=0.3, what=what)
    return states[-1]


def wait_until_finished(operations: OpsClient, run_id: str) -> RunState:
    return wait_for_state(operations, run_id, lambda state: state.status.is_finished, "the run to finish")


def job_run_row(server: OperationsServer, run_id: str) -> JobRun:
    """The run's row in JobRun, once it has its final status."""

    def find_row() -> JobRun | None:
        with server.sessions() as session:
            return session.scalar(select(JobRun).where(JobRun.run_id == run_id, JobRun.resolution.is_not(None)))

    wait_until(find_row, seconds=240, every=0.3, what="the finished run in JobRun")
    found = find_row()
    assert found is not None
    return found


def reexecute(server: OperationsServer, run_id: str, extra_tags: dict[str, str]) -> str:
    """Re-execute the run as the UI does; return the new run's ID, or why there is none."""
    query = """
        mutation($params: ReexecutionParams!) {
          launchRunReexecution(reexecutionParams: $params) {
            ... on LaunchRunSuccess { run { runId } }
            ... on PythonError { message }
          }
        }
    """
    tags = [{"key": key, "value": value} for key, value in extra_tags.items()]
    params = {"parentRunId": run_id, "strategy": "ALL_STEPS", "extraTags": tags}
    response = httpx.post(
        f"{server.url}/graphql", json={"query": query, "variables": {"params": params}}, timeout=60
    ).json()["data"]["launchRunReexecution"]
    return str(response["message"] if "message" in response else response["run"]["runId"])


def runs_with_request_id(server: OperationsServer, request_id: str) -> list[str]:
    """The IDs of all runs with the request's tag, read without the client."""
    query = "query($t: ExecutionTag!) { runsOrError(filter: {tags: [$t]}) { ... on Runs { results { runId } } } }"
    variables = {"t": {"key": REQUEST_TAG, "value": request_id}}
    response = httpx.post(f"{server.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
    return [run["runId"] for run in response.json()["data"]["runsOrError"]["results"]]


@pytest.mark.parametrize(
    ("job", "config", "status", "result"),
    [
        ("example_with_args", {"name": "Dana", "times": 2}, "COMPLETED", ["Hello, Dana.", "Hello, Dana."]),
        ("example", None, "COMPLETED", "hello"),
        ("example_progress", {"steps": 2, "seconds_per_step": 0}, "COMPLETED", {"steps": 2}),
        ("example_error", None, "ERROR", None),
        ("process_huntington_batch", {"batch_id": 4711}, "ERROR", None),
    ],
)
def test_finished_run_state_matches_job_run(
    operations: OpsClient, operations_server: OperationsServer, job: str, config: Any, status: str, result: Any
) -> None:
    run_id = operations.launch(job, config, launched_by="user:7")
    state = wait_until_finished(operations, run_id)
    assert (state.run_id, state.job, state.status, state.result) == (run_id, job, status, result)
    assert state.launched_by == "user:7"
    row = job_run_row(operations_server, run_id)
    stored = (row.task_name, row.status, row.result, row.error, row.arguments)
    assert stored == (state.job, state.status, state.result, state.error, config or {})
    assert (row.queued_at, row.started_at, row.finished_at) == (state.queued_at, state.started_at, state.finished_at)
    assert (state.error is None) == (status == "COMPLETED")


def test_running_run_shows_progress_and_stops_when_revoked(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    run_id = operations.launch("example_progress", LONG)
    state = wait_for_state(
        operations, run_id, lambda state: bool(state.progress and state.progress.done), "its first step"
    )
    assert (state.status, state.is_stopping) == (RunStatus.STARTED, False)
    assert state.progress is not None
    assert state.progress.total == LONG["steps"]
    revoked = operations.revoke(run_id)
    assert revoked.status is RunStatus.REVOKED or revoked.is_stopping
    assert wait_until_finished(operations, run_id).status is RunStatus.REVOKED
    assert job_run_row(operations_server, run_id).status == "REVOKED"


def test_tag_that_replaces_a_container_is_refused_and_a_reexecution_is_not(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    sentence = (
        r"^example was not launched\. .*: This run of example was refused because of its tags dagster-k8s/config, "
    )
    request_id = uuid.uuid4().hex
    tags = {"dagster-k8s/config": "{}", "seedtrust/severity": "CRITICAL"}
    with pytest.raises(OperationsRefused, match=sentence):
        operations.launch("example", request_id=request_id, tags=tags)
    # Only a daemon may say that a sensor launched a run.
    with pytest.raises(OperationsRefused, match="because of its tags dagster/run_key, dagster/sensor_name"):
        operations.launch("example", tags={"dagster/sensor_name": "huntington_batch_sensor", "dagster/run_key": "7"})
    parent = operations.launch("example", launched_by="user:7", request_id=request_id, tags={"team": "operations"})
    assert wait_until_finished(operations, parent).status is RunStatus.COMPLETED
    assert "refused because of its tags ecs/container_overrides." in reexecute(
        operations_server, parent, {"ecs/container_overrides": "{}"}
    )
    # It has its parent's tags, those of the parent's worker included.
    child = reexecute(operations_server, parent, {})
    assert wait_until_finished(operations, child).status is RunStatus.COMPLETED


def test_queued_run_is_revoked_at_once_and_revoking_is_idempotent(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    first = operations.launch("example_progress", LONG)
    wait_for_state(operations, first, lambda state: state.status is RunStatus.STARTED, "the first run to start")
    queued = operations.launch("example_progress", LONG)
    expiring = operations.launch("example_progress", LONG)
    operations_server.home.backdate_run(expiring, timedelta(days=1).total_seconds())
    try:
        assert operations.job_run(queued).status is RunStatus.PENDING
        assert operations.revoke(queued).status is RunStatus.REVOKED
        assert operations.revoke(queued).status is RunStatus.REVOKED
        assert job_run_row(operations_server, queued).status == "REVOKED"
        expired = wait_until_finished(operations, expiring)
        assert expired.status is RunStatus.EXPIRED
        assert "No work was done." in (expired.error or "")
        assert job_run_row(operations_server, expiring).status == "EXPIRED"
        with pytest.raises(RunAlreadyFinished, match="EXPIRED") as finished:
            operations.revoke(expiring)
        assert finished.value.status == "EXPIRED"
    finally:
        operations.revoke(first)
    assert wait_until_finished(operations, first).status is RunStatus.REVOKED


def test_starting_run_must_be_revoked_again(operations: OpsClient, operations_server: OperationsServer) -> None:
    variables = operations_server.variables
    home = DagsterHome(Path(variables["DAGSTER_HOME"]), make_url(variables["DAGSTER_POSTGRES_URL"]))
    with open_instance(home) as instance:
        starting = create_run_for_test(instance, job_name="example", status=dg.DagsterRunStatus.STARTING).run_id
        with pytest.raises(RunStarting, match="Revoke it again"):
            operations.revoke(starting)
        instance.report_run_canceled(instance.get_run_by_id(starting))
    assert operations.revoke(starting).status is RunStatus.REVOKED


@pytest.mark.parametrize(
    ("job", "config", "problem"),
    [
        ("process_huntington_batch", {"batch": 7}, '"batch"'),
        ("process_huntington_batch", {"batch_id": "seven"}, "for 'batch_id'"),
        ("example_with_args", {"name": "Dana", "times": [2]}, "'times'"),
        ("process_huntington_batch", {"batch_id": 7, "dry": [1]}, '"dry"'),
    ],
)
def test_invalid_config_is_explained_and_launches_nothing(
    operations: OpsClient, operations_server: OperationsServer, job: str, config: Any, problem: str
) -> None:
    request_id = uuid.uuid4().hex
    with pytest.raises(InvalidConfig) as invalid:
        operations.launch(job, config, request_id=request_id)
    assert any(problem in message for message in invalid.value.problems), invalid.value.problems
    assert "was not launched" in str(invalid.value)
    assert "root" not in str(invalid.value)
    assert runs_with_request_id(operations_server, request_id) == []


def test_unknown_job_and_run_are_named(operations: OpsClient) -> None:
    unknown_id = str(uuid.uuid4())
    with pytest.raises(UnknownJob, match="'transfer_everything'"):
        operations.launch("transfer_everything")
    for call in (operations.job_run, operations.revoke):
        with pytest.raises(UnknownRun, match=unknown_id):
            call(unknown_id)


def test_request_id_launches_once(operations: OpsClient, operations_server: OperationsServer) -> None:
    request_id = uuid.uuid4().hex
    run_ids = {operations.launch("example", request_id=request_id) for _ in range(3)}
    assert [*run_ids] == runs_with_request_id(operations_server, request_id)
    # Another job's launch is another launch.
    assert operations.launch("example_with_args", request_id=request_id) not in run_ids


def test_launch_with_a_lost_response_is_found_and_not_repeated(operations_server: OperationsServer) -> None:
    request_id = uuid.uuid4().hex
    with (
        response_dropping_proxy(operations_server.url, drop=1) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as lossy,
    ):
        run_id = lossy.launch("example", request_id=request_id)
    assert [run_id] == runs_with_request_id(operations_server, request_id)


def test_uncertain_launch_can_be_resolved_by_its_request_id(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    with (
        response_dropping_proxy(operations_server.url, drop=100) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as lossy,
        pytest.raises(LaunchUncertain) as uncertain,
    ):
        lossy.launch("example")
    (run_id,) = runs_with_request_id(operations_server, uncertain.value.request_id)
    assert operations.launch("example", request_id=uncertain.value.request_id) == run_id
    assert [run_id] == runs_with_request_id(operations_server, uncertain.value.request_id)


def test_async_client_behaves_like_the_blocking_one(operations_server: OperationsServer) -> None:
    async def use() -> tuple[RunState, RunState]:
        async with AsyncOpsClient(operations_server.url, application="a-test", timeout_seconds=60) as operations:
            run_id = await operations.launch("example_with_args", {"name": "Dana"}, launched_by="user:7")
            async with asyncio.timeout(240):
                while not (done := await operations.job_run(run_id)).status.is_finished:
                    await asyncio.sleep(0.3)
            with pytest.raises(RunAlreadyFinished):
                await operations.revoke(run_id)
            with pytest.raises(InvalidConfig):
                await operations.launch("process_huntington_batch", {"batch_id": "seven"})
            with response_dropping_proxy(operations_server.url, drop=1) as url:
                async with AsyncOpsClient(url, application="a-test", timeout_seconds=60) as lossy:
                    found = await operations.job_run(await lossy.launch("example"))
            return done, found

    done, found = asyncio.run(use())
    assert (done.status, done.result, done.launched_by) == (RunStatus.COMPLETED, ["Hello, Dana."], "user:7")
    assert (found.job, found.launched_by) == ("example", "a-test")


def test_read_only_server_and_missing_code_server_are_explained(
    operations_server: OperationsServer, operations: OpsClient, tmp_path: Path
) -> None:
    run_id = operations.launch("example_progress", LONG)
    wait_for_state(operations, run_id, lambda state: state.status is RunStatus.STARTED, "the run to start")
    workspace_without_code = write_workspace(tmp_path, tmp_path / "nobody-listens.socket")
    log = tmp_path / "log"
    with (
        run_web_server(operations_server.workspace, operations_server.variables, log, "--read-only") as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as read_only_client,
    ):
        assert read_only_client.job_run(run_id).job == "example_progress"
        with pytest.raises(OperationsRefused, match="--read-only"):
            read_only_client.launch("example")
        with pytest.raises(OperationsRefused, match="permission"):
            read_only_client.revoke(run_id)
        assert not read_only_client.job_run(run_id).is_stopping
    with (
        run_web_server(workspace_without_code, operations_server.variables, log) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as client_without_code,
    ):
        with pytest.raises(OperationsUnreachable, match="has not loaded the jobs"):
            client_without_code.launch("example")
        # Runs are stored in the database, so they can be read and stopped without the code server.
        assert client_without_code.revoke(run_id).job == "example_progress"
    assert wait_until_finished(operations, run_id).status is RunStatus.REVOKED


def run_code_example(number: int) -> dict[str, Any]:
    """The names defined by the code example with this number in docs/client.md."""
    page = Path(seedtrust_ops.__file__).parents[1] / "docs" / "client.md"
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[number], str(page), "exec"), names)
    return names


@pytest.fixture
def applications_database(
    monkeypatch: pytest.MonkeyPatch, operations_server: OperationsServer, cipher: FernetFieldCipher
) -> Company:
    database = operations_server.variables["SEEDTRUST_DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", database.replace("postgresql://", "postgresql+psycopg://"))
    monkeypatch.setenv("OPERATIONS_URL", operations_server.url)
    return Company(operations_server.sessions, cipher)


def test_documented_fastapi_app_queues_launches_and_reads(applications_database: Company) -> None:
    batch_id = applications_database.batch([1_000, 2_000], status="draft", queued_at=None)
    with TestClient(run_code_example(0)["app"]) as application:
        response = application.post(f"/batches/{batch_id}/queue")
        assert response.status_code == 202, response.text
        assert response.json() == {"batch": batch_id, "transactions": 2, "amount_cents": 3_000}
        assert applications_database.batch_row(batch_id).status == "queued"
        assert application.post("/batches/999999/queue").status_code == 404
        run_id = application.post("/bank/check-now", params={"user_id": 7}).json()["run"]
        assert application.get(f"/runs/{run_id}").json()["job"] == "auto_heal_huntington_batches"
        unknown = application.get(f"/runs/{uuid.uuid4()}")
        assert (unknown.status_code, "Dagster has no run" in unknown.json()["detail"]) == (404, True)


def test_documented_flask_app_requests_a_report_and_revokes(
    applications_database: Company, operations: OpsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_KEY", "a key of this test")
    names = run_code_example(1)
    application = names["app"].test_client()
    case = applications_database.case()
    with application.session_transaction() as login:
        login["user_id"] = case.specialist_id
    response = application.post(f"/cases/{case.case_id}/ledger")
    assert response.status_code == 202, response.text
    with applications_database.sessions() as session:
        stored = session.get(ReportRequest, response.json["request"])
        assert stored is not None
        assert (stored.kind, stored.params, stored.format) == ("case_ledger", {"case_id": case.case_id}, "pdf")
    assert application.post("/cases/999999/ledger").status_code == 422
    with application.session_transaction() as login:
        login["user_id"] = applications_database.case().payee_id
    refused = application.post(f"/cases/{case.case_id}/ledger", data={"user_id": case.specialist_id})
    assert (refused.status_code, "you are not one of its parties" in refused.json["detail"]) == (403, True)
    run_id = operations.launch("example_progress", LONG)
    # Dagster cannot cancel a run while it is starting.
    wait_for_state(operations, run_id, lambda state: state.status is RunStatus.STARTED, "the run to start")
    response = application.delete(f"/runs/{run_id}").json
    assert response["status"] == "REVOKED" or response["is_stopping"]
    assert wait_until_finished(operations, run_id).status is RunStatus.REVOKED
    names["operations"].close()


def start_run(operations: OpsClient) -> str:
    """Launch a run of a few seconds and return its id while it is STARTED; if it ended too soon, launch another."""
    while True:
        run_id = operations.launch("example_progress", {"steps": 10, "seconds_per_step": 0.5})
        state = wait_for_state(
            operations, run_id, lambda state: state.status is not RunStatus.PENDING, "the run to start"
        )
        if state.status is RunStatus.STARTED:
            return run_id


def test_worker_restart_loses_no_run_and_no_web_server(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    run_id = start_run(operations)
    operations_server.stop_worker()
    # The worker let the run finish.
    assert operations.job_run(run_id).status is RunStatus.COMPLETED
    operations_server.start_worker()
    assert job_run_row(operations_server, run_id).status == "COMPLETED"

    def can_launch() -> bool:
        try:
            return bool(operations.launch("example"))
        except SeedTrustError:
            # The web server reconnects to the code server every few seconds.
            return False

    wait_until(can_launch, seconds=240, every=1, what="a launch by the web server that was never restarted")
