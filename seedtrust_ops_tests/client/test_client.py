"""The client on Dagster's own web server and daemon: what is launched runs, and what it says agrees with JobRun."""

import asyncio
import re
import uuid
from collections.abc import Callable
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
    LaunchUncertain,
    OperationsRefused,
    OperationsUnreachable,
    OpsClient,
    RunIsOver,
    RunIsStarting,
    RunState,
    RunStatus,
    UnknownJob,
    UnknownRun,
    WrongConfig,
)
from seedtrust_ops.client.runs import REQUEST_TAG
from seedtrust_ops.job_policies import EXPIRES_TAG, SINGLETON_TAG
from seedtrust_ops.resources.field_encryption import FernetFieldCipher
from seedtrust_ops.supervisor.worker_stack import free_port, write_workspace
from seedtrust_ops.tables import JobRun, ReportRequest
from seedtrust_ops_tests.client.conftest import OperationsServer
from seedtrust_ops_tests.client.operations_server import serving
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, instance_of
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.http_stubs import losing_answers
from seedtrust_ops_tests.support.waiters import wait_until

pytestmark = pytest.mark.timeout(900)  # the first test waits for worker and web server to start
LONG = {"steps": 1000, "seconds_a_step": 1}


def wait_for(operations: OpsClient, run_id: str, met: Callable[[RunState], bool], what: str) -> RunState:
    states: list[RunState] = []

    def is_met() -> bool:
        states.append(operations.job_run(run_id))
        return met(states[-1])

    wait_until(is_met, seconds=240, every=0.3, what=what)
    return states[-1]


def wait_for_end(operations: OpsClient, run_id: str) -> RunState:
    return wait_for(operations, run_id, lambda state: state.status.is_over, "the run's end")


def mirrored(server: OperationsServer, run_id: str) -> JobRun:
    """The run's row in JobRun, once it has its last word."""

    def row() -> JobRun | None:
        with server.sessions() as session:
            return session.scalar(select(JobRun).where(JobRun.run_id == run_id, JobRun.resolution.is_not(None)))

    wait_until(row, seconds=240, every=0.3, what="the run's end in JobRun")
    found = row()
    assert found is not None
    return found


def runs_of(server: OperationsServer, request_id: str) -> list[str]:
    """The ids of all runs that bear the request's tag, by a question of the test's own."""
    query = "query($t: ExecutionTag!) { runsOrError(filter: {tags: [$t]}) { ... on Runs { results { runId } } } }"
    variables = {"t": {"key": REQUEST_TAG, "value": request_id}}
    answer = httpx.post(f"{server.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
    return [run["runId"] for run in answer.json()["data"]["runsOrError"]["results"]]


@pytest.mark.parametrize(
    ("job", "config", "status", "result"),
    [
        ("example_with_args", {"name": "Dana", "times": 2}, "COMPLETED", ["Hello, Dana.", "Hello, Dana."]),
        ("example", None, "COMPLETED", "hello"),
        ("example_progress", {"steps": 2, "seconds_a_step": 0}, "COMPLETED", {"steps": 2}),
        ("example_error", None, "ERROR", None),
        ("process_huntington_batch", {"batch_id": 4711}, "ERROR", None),
    ],
)
def test_a_launched_run_ends_as_job_run_has_it(
    operations: OpsClient, operations_server: OperationsServer, job: str, config: Any, status: str, result: Any
) -> None:
    run_id = operations.launch(job, config, launched_by="user:7")
    state = wait_for_end(operations, run_id)
    assert (state.run_id, state.job, state.status, state.result) == (run_id, job, status, result)
    assert state.launched_by == "user:7"
    row = mirrored(operations_server, run_id)
    kept = (row.task_name, row.status, row.result, row.error, row.arguments)
    assert kept == (state.job, state.status, state.result, state.error, config or {})
    assert (row.queued_at, row.started_at, row.finished_at) == (state.queued_at, state.started_at, state.finished_at)
    assert (state.error is None) == (status == "COMPLETED")


def test_a_run_under_way_shows_its_progress_and_is_stopped_when_revoked(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    run_id = operations.launch("example_progress", LONG)
    state = wait_for(operations, run_id, lambda state: bool(state.progress and state.progress.done), "its first step")
    assert (state.status, state.is_ending) == (RunStatus.STARTED, False)
    assert state.progress is not None
    assert state.progress.total == LONG["steps"]
    asked = operations.revoke(run_id)
    assert asked.status is RunStatus.REVOKED or asked.is_ending
    assert wait_for_end(operations, run_id).status is RunStatus.REVOKED
    assert mirrored(operations_server, run_id).status == "REVOKED"


def test_a_queued_run_is_revoked_at_once_and_twice_is_no_error(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    one_at_a_time = {SINGLETON_TAG: uuid.uuid4().hex}
    first = operations.launch("example_progress", LONG, tags=one_at_a_time)
    wait_for(operations, first, lambda state: state.status is RunStatus.STARTED, "the first run's start")
    waiting = operations.launch("example_progress", LONG, tags=one_at_a_time)
    too_late = operations.launch("example_progress", LONG, tags=one_at_a_time | {EXPIRES_TAG: "0.001"})
    try:
        assert operations.job_run(waiting).status is RunStatus.PENDING
        assert operations.revoke(waiting).status is RunStatus.REVOKED
        assert operations.revoke(waiting).status is RunStatus.REVOKED
        assert mirrored(operations_server, waiting).status == "REVOKED"
        expired = wait_for_end(operations, too_late)
        assert expired.status is RunStatus.EXPIRED
        assert "It did nothing." in (expired.error or "")
        assert mirrored(operations_server, too_late).status == "EXPIRED"
        with pytest.raises(RunIsOver, match="EXPIRED") as over:
            operations.revoke(too_late)
        assert over.value.status == "EXPIRED"
    finally:
        operations.revoke(first)
    assert wait_for_end(operations, first).status is RunStatus.REVOKED


def test_a_run_that_is_being_started_is_to_be_revoked_again(
    operations: OpsClient, operations_server: OperationsServer
) -> None:
    variables = operations_server.variables
    home = DagsterHome(Path(variables["DAGSTER_HOME"]), make_url(variables["DAGSTER_POSTGRES_URL"]))
    with instance_of(home) as instance:
        starting = create_run_for_test(instance, job_name="example", status=dg.DagsterRunStatus.STARTING).run_id
        with pytest.raises(RunIsStarting, match="Revoke it again"):
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
def test_a_wrong_config_is_told_in_plain_words_and_launches_nothing(
    operations: OpsClient, operations_server: OperationsServer, job: str, config: Any, problem: str
) -> None:
    request_id = uuid.uuid4().hex
    with pytest.raises(WrongConfig) as wrong:
        operations.launch(job, config, request_id=request_id)
    assert any(problem in sentence for sentence in wrong.value.problems), wrong.value.problems
    assert "was not launched" in str(wrong.value)
    assert "root" not in str(wrong.value)
    assert runs_of(operations_server, request_id) == []


def test_what_is_not_there_is_named(operations: OpsClient) -> None:
    nobody = str(uuid.uuid4())
    with pytest.raises(UnknownJob, match="'transfer_everything'"):
        operations.launch("transfer_everything")
    for ask in (operations.job_run, operations.revoke):
        with pytest.raises(UnknownRun, match=nobody):
            ask(nobody)


def test_a_request_id_launches_once(operations: OpsClient, operations_server: OperationsServer) -> None:
    request_id = uuid.uuid4().hex
    run_ids = {operations.launch("example", request_id=request_id) for _ in range(3)}
    assert [*run_ids] == runs_of(operations_server, request_id)


def test_a_launch_whose_answer_was_lost_is_found_and_not_repeated(operations_server: OperationsServer) -> None:
    request_id = uuid.uuid4().hex
    with (
        losing_answers(operations_server.url, lost=1) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as lossy,
    ):
        run_id = lossy.launch("example", request_id=request_id)
    assert [run_id] == runs_of(operations_server, request_id)


def test_a_launch_in_doubt_says_how_to_find_out(operations: OpsClient, operations_server: OperationsServer) -> None:
    with (
        losing_answers(operations_server.url, lost=100) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as lossy,
        pytest.raises(LaunchUncertain) as doubt,
    ):
        lossy.launch("example")
    (run_id,) = runs_of(operations_server, doubt.value.request_id)
    assert operations.launch("example", request_id=doubt.value.request_id) == run_id
    assert [run_id] == runs_of(operations_server, doubt.value.request_id)


def test_the_client_for_asyncio_does_the_same(operations_server: OperationsServer) -> None:
    async def use() -> tuple[RunState, RunState]:
        async with AsyncOpsClient(operations_server.url, application="a-test", timeout_seconds=60) as operations:
            run_id = await operations.launch("example_with_args", {"name": "Dana"}, launched_by="user:7")
            async with asyncio.timeout(240):
                while not (done := await operations.job_run(run_id)).status.is_over:
                    await asyncio.sleep(0.3)
            with pytest.raises(RunIsOver):
                await operations.revoke(run_id)
            with pytest.raises(WrongConfig):
                await operations.launch("process_huntington_batch", {"batch_id": "seven"})
            with losing_answers(operations_server.url, lost=1) as url:
                async with AsyncOpsClient(url, application="a-test", timeout_seconds=60) as lossy:
                    found = await operations.job_run(await lossy.launch("example"))
            return done, found

    done, found = asyncio.run(use())
    assert (done.status, done.result, done.launched_by) == (RunStatus.COMPLETED, ["Hello, Dana."], "user:7")
    assert (found.job, found.launched_by) == ("example", "a-test")


def test_a_web_server_for_looking_only_and_one_without_code_say_so(
    operations_server: OperationsServer, operations: OpsClient, tmp_path: Path
) -> None:
    run_id = operations.launch("example_progress", LONG)
    wait_for(operations, run_id, lambda state: state.status is RunStatus.STARTED, "its start")
    nobody = write_workspace(tmp_path, free_port())
    log = tmp_path / "log"
    with (
        serving(operations_server.workspace, operations_server.variables, log, "--read-only") as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as looking,
    ):
        assert looking.job_run(run_id).job == "example_progress"
        with pytest.raises(OperationsRefused, match="--read-only"):
            looking.launch("example")
        with pytest.raises(OperationsRefused, match="permission"):
            looking.revoke(run_id)
        assert not looking.job_run(run_id).is_ending
    with (
        serving(nobody, operations_server.variables, log) as url,
        OpsClient(url, application="a-test", timeout_seconds=60) as without_code,
    ):
        with pytest.raises(OperationsUnreachable, match="has not loaded the jobs"):
            without_code.launch("example")
        # What is known of runs is in the database, and so they can be seen and stopped without the code.
        assert without_code.revoke(run_id).job == "example_progress"
    assert wait_for_end(operations, run_id).status is RunStatus.REVOKED


def documented(number: int) -> dict[str, Any]:
    """The names that the page's example defines, which stands as a program there."""
    page = Path(seedtrust_ops.__file__).parents[1] / "docs" / "client.md"
    names: dict[str, Any] = {"__name__": "documented"}
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


def test_the_documented_fastapi_application_queues_launches_and_looks(applications_database: Company) -> None:
    batch_id = applications_database.batch([1_000, 2_000], status="draft", queued_at=None)
    with TestClient(documented(0)["app"]) as application:
        answer = application.post(f"/batches/{batch_id}/queue")
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"batch": batch_id, "transactions": 2, "amount_cents": 3_000}
        assert applications_database.batch_row(batch_id).status == "queued"
        assert application.post("/batches/999999/queue").status_code == 404
        run_id = application.post("/bank/ask-now", params={"user_id": 7}).json()["run"]
        assert application.get(f"/runs/{run_id}").json()["job"] == "auto_heal_huntington_batches"
        unknown = application.get(f"/runs/{uuid.uuid4()}")
        assert (unknown.status_code, "Dagster has no run" in unknown.json()["detail"]) == (404, True)


def test_the_documented_flask_application_asks_for_a_report_and_revokes(
    applications_database: Company, operations: OpsClient
) -> None:
    names = documented(1)
    application = names["app"].test_client()
    case = applications_database.case()
    asked = application.post(f"/cases/{case.case_id}/ledger", data={"user_id": case.specialist_id})
    assert asked.status_code == 202, asked.text
    with applications_database.sessions() as session:
        kept = session.get(ReportRequest, asked.json["request"])
        assert kept is not None
        assert (kept.kind, kept.params, kept.format) == ("case_ledger", {"case_id": case.case_id}, "pdf")
    assert application.post("/cases/999999/ledger", data={"user_id": case.specialist_id}).status_code == 422
    run_id = operations.launch("example_progress", LONG)
    # Dagster lets nobody cancel a run in the moment in which it is being started.
    wait_for(operations, run_id, lambda state: state.status is RunStatus.STARTED, "its start")
    answer = application.delete(f"/runs/{run_id}").json
    assert answer["status"] == "REVOKED" or answer["ending"] == "yes"
    assert wait_for_end(operations, run_id).status is RunStatus.REVOKED
    names["operations"].close()
