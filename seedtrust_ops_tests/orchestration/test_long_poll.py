"""The two long-polling sensors request a run as soon as there is work, and do not block other sensors meanwhile.

What they request is tested with their jobs; how they wait is tested with `database/listen_notify`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from sqlalchemy import event, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.database.engine import application_engine
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, notify_stop
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor
from seedtrust_ops.jobs.rule_based_approval import pending_dr_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.supervisor.program import GuardedProcess
from seedtrust_ops.supervisor.worker_stack import build_code_server, prepare_code_server_socket
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.waiters import wait_until

WAITING = text(
    "select count(*) from pg_stat_activity where datname = current_database() and query like '%pg_trigger%'"
    " and state = 'idle' and pid <> pg_backend_pid()"
)


def count_waiting(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return int(session.scalar(WAITING) or 0)


def requests_run_after(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, action: Callable[[], object]) -> bool:
    """Return whether a waiting sensor that found nothing requests a run after `action`, before its time is up."""
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    evaluated = Event()
    event.listen(application_engine(), "checkin", lambda *_: evaluated.set())
    with ThreadPoolExecutor(1) as pool:
        tick = pool.submit(lambda: sensor(context))
        assert evaluated.wait(60)
        action()
        return not isinstance(tick.result(), dg.SkipReason)


@pytest.fixture
def long_wait(bank_environment: dict[str, str], set_variables: SetVariables, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a stalled machine a first evaluation of half a second would cause a pause of ten seconds.
    monkeypatch.setattr("seedtrust_ops.jobs.rule_based_approval.COOLDOWN_RATIO", 0)
    set_variables(SEEDTRUST_SENSOR_WAIT_SECONDS="10")


def test_queued_batch_starts_a_run_at_once(long_wait: None, instance: dg.DagsterInstance, company: Company) -> None:
    assert requests_run_after(huntington_batch_sensor, instance, lambda: company.batch([100]))


def test_new_request_and_one_taken_off_hold_start_a_run_at_once(
    long_wait: None, instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    factory = CaseFactory(sessions)
    case = factory.case()
    factory.rule()
    held = factory.request(case, on_hold=True)

    def take_off_hold() -> None:
        with sessions.begin() as session:
            session.execute(text(f"update disbursement_requests set on_hold = false where id = {held}"))

    assert requests_run_after(pending_dr_sensor, instance, take_off_hold)
    with sessions.begin() as session:
        session.execute(text("update disbursement_requests set status = 'approved'"))
    assert requests_run_after(pending_dr_sensor, instance, lambda: factory.request(case))


@contextmanager
def served(home: DagsterHome, variables: dict[str, str]) -> Iterator[GrpcServerCodeLocation]:
    """The code location as the daemon sees it, over gRPC from the worker's code server."""
    socket_path = prepare_code_server_socket(home.folder)
    program = build_code_server(environment_for_child(variables | home.variables), socket_path)
    run = GuardedProcess(program, lambda name, line: None)
    try:
        wait_until(program.is_ready, seconds=90, every=0.2, what="the code server")
        with dg.DagsterInstance.get() as instance:
            origin = GrpcServerCodeLocationOrigin(
                host="localhost", socket=str(socket_path), location_name="seedtrust_ops"
            )
            with GrpcServerCodeLocation(origin, instance) as location:
                yield location
    finally:
        run.stop()


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.timeout(170)
def test_waiting_sensors_do_not_block_other_sensors(
    long_wait: None,
    instance: dg.DagsterInstance,
    dagster_home: DagsterHome,
    bank_environment: dict[str, str],
    sessions: sessionmaker[Session],
) -> None:
    variables = bank_environment | {"SEEDTRUST_SENSOR_WAIT_SECONDS": "10"}
    with served(dagster_home, variables) as location:
        (repository,) = location.get_repositories().values()

        def evaluate(sensor_name: str) -> str | None:
            sensor = repository.get_sensor(sensor_name)
            data = location.get_sensor_execution_data(
                instance, repository.handle, sensor.name, None, None, None, None, None
            )
            return data.skip_message

        def evaluate_until_done() -> set[str | None]:
            messages = {evaluate("huntington_batch_sensor")}
            while not done.is_set():
                messages.add(evaluate("huntington_batch_sensor"))
            return messages

        # More than Dagster's code server threads on a small machine: the number of cores plus four.
        waiters = 12
        done = Event()
        with ThreadPoolExecutor(waiters) as pool:
            waits = [pool.submit(evaluate_until_done) for _ in range(waiters)]
            try:
                wait_until(lambda: count_waiting(sessions) >= waiters, what="all of them to wait")
                assert "JobRun rows" in str(evaluate("job_run_sensor"))
            finally:
                done.set()
                notify_stop(sessions.kw["bind"], BATCH_QUEUED)
            assert [wait.result() for wait in waits] == [{"No batch is queued."}] * waiters
