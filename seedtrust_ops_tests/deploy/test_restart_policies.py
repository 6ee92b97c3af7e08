"""A restart of the worker: running jobs finish and reach JobRun, and the web server finds the next worker.

The worker is stopped as KillMode=mixed stops it: SIGTERM to the supervisor only.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.orm import sessionmaker

from seedtrust_ops.client import OpsClient, RunStatus, SeedTrustError
from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.tables import JobRun
from seedtrust_ops_tests.client.operations_server import run_web_server, run_worker, server_variables
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.waiters import wait_until


def start_run(operations: OpsClient) -> str:
    """Launch a run of a few seconds and return its id while it is STARTED; if it ended too soon, launch another."""
    while True:
        run_id = operations.launch("example_progress", {"steps": 10, "seconds_per_step": 0.5})
        wait_until(
            lambda run_id=run_id: operations.job_run(run_id).status is not RunStatus.PENDING,
            seconds=240,
            every=0.2,
            what="its start",
        )
        if operations.job_run(run_id).status is RunStatus.STARTED:
            return run_id


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(900)
def test_worker_restart_loses_no_run_and_no_web_server(
    dagster_home: DagsterHome, database_url: URL, field_key: str, tmp_path: Path
) -> None:
    variables, log = server_variables(dagster_home, database_url, field_key), tmp_path / "processes.log"
    engine = create_application_engine(database_url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        with ExitStack() as first:
            workspace = first.enter_context(run_worker(dagster_home, variables, log))
            url = stack.enter_context(run_web_server(workspace, variables, log))
            operations = stack.enter_context(OpsClient(url, application="a-test", timeout_seconds=60))
            run_id = start_run(operations)
        # The worker is gone and let the run finish; JobRun does not have its end yet.
        assert operations.job_run(run_id).status is RunStatus.COMPLETED
        stack.enter_context(run_worker(dagster_home, variables, log))

        def mirrored_status() -> str | None:
            with sessionmaker(engine)() as session:
                return session.scalar(select(JobRun.status).where(JobRun.run_id == run_id))

        wait_until(lambda: mirrored_status() == "COMPLETED", seconds=240, every=0.5, what="the run's end in JobRun")

        def can_launch() -> bool:
            try:
                return bool(operations.launch("example"))
            except SeedTrustError:
                # The web server reconnects to the code server every few seconds.
                return False

        wait_until(can_launch, seconds=240, every=1, what="a launch by the web server that was never restarted")
