"""The two sensors that wait ask for a run as soon as there is work, and hold up nobody meanwhile.

What they ask for is in their own tests, how they wait in the tests of `resources/waiting`.
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
from seedtrust_ops.database.listen_notify import BATCH_QUEUED, stop_waiting
from seedtrust_ops.jobs.process_huntington_batch import huntington_batch_sensor
from seedtrust_ops.jobs.rule_based_approval import pending_dr_sensor
from seedtrust_ops.orchestration.dagster_resources import DatabaseResource
from seedtrust_ops.supervisor.program import KeptRun
from seedtrust_ops.supervisor.worker_stack import code_server, free_port
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.factories import Company
from seedtrust_ops_tests.support.job_environment import Change
from seedtrust_ops_tests.support.office_factory import Office
from seedtrust_ops_tests.support.waiters import wait_until

WAITING = text(
    "select count(*) from pg_stat_activity where datname = current_database() and query like '%pg_trigger%'"
    " and state = 'idle' and pid <> pg_backend_pid()"
)


def waiting(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return int(session.scalar(WAITING) or 0)


def asked_for(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, do: Callable[[], object]) -> bool:
    """Whether a sensor that found nothing and waits asks for a run when `do` is done, before its time is over."""
    context = dg.build_sensor_context(instance=instance, resources={"database": DatabaseResource()})
    looked = Event()
    event.listen(application_engine(), "checkin", lambda *_: looked.set())
    with ThreadPoolExecutor(1) as pool:
        tick = pool.submit(lambda: sensor(context))
        assert looked.wait(60)
        do()
        return not isinstance(tick.result(), dg.SkipReason)


@pytest.fixture
def patient(bank_environment: dict[str, str], change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    # A first look that takes half a second, on a machine that stands still, would be followed by ten without one.
    monkeypatch.setattr("seedtrust_ops.jobs.rule_based_approval.REST_AFTER_A_LOOK", 0)
    change(SEEDTRUST_SENSOR_WAIT_SECONDS="10")


def test_batch_that_is_queued_wakes_its_sensor(patient: None, instance: dg.DagsterInstance, company: Company) -> None:
    assert asked_for(huntington_batch_sensor, instance, lambda: company.batch([100]))


def test_request_that_is_made_and_one_that_is_taken_off_hold_wake_their_sensor(
    patient: None, instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    office = Office(sessions)
    case = office.case()
    office.rule()
    held = office.request(case, on_hold=True)

    def take_off_hold() -> None:
        with sessions.begin() as session:
            session.execute(text(f"update disbursement_requests set on_hold = false where id = {held}"))

    assert asked_for(pending_dr_sensor, instance, take_off_hold)
    with sessions.begin() as session:
        session.execute(text("update disbursement_requests set status = 'approved'"))
    assert asked_for(pending_dr_sensor, instance, lambda: office.request(case))


@contextmanager
def served(home: DagsterHome, variables: dict[str, str]) -> Iterator[GrpcServerCodeLocation]:
    """The code location as the daemon has it: over gRPC, from the worker's code server."""
    port = free_port()
    program = code_server(environment_for_child(variables | home.variables), port)
    run = KeptRun(program, lambda name, line: None)
    try:
        wait_until(program.is_ready, seconds=90, every=0.2, what="the code server")
        with dg.DagsterInstance.get() as instance:
            origin = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=port, location_name="seedtrust_ops")
            with GrpcServerCodeLocation(origin, instance) as location:
                yield location
    finally:
        run.stop()


@pytest.mark.timeout(170)
def test_nobody_waits_behind_sensors_that_wait(
    patient: None,
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

        def wait_again_and_again() -> set[str | None]:
            said = {evaluate("huntington_batch_sensor")}
            while not answered.is_set():
                said.add(evaluate("huntington_batch_sensor"))
            return said

        # More than the threads that Dagster gives a code server on a small machine: the number of its cores and four.
        crowd = 12
        answered = Event()
        with ThreadPoolExecutor(crowd) as pool:
            waits = [pool.submit(wait_again_and_again) for _ in range(crowd)]
            try:
                wait_until(lambda: waiting(sessions) >= crowd, what="all of them to wait")
                assert "rows of JobRun" in str(evaluate("job_run_sensor"))
            finally:
                answered.set()
                stop_waiting(sessions.kw["bind"], BATCH_QUEUED)
            assert [wait.result() for wait in waits] == [{"No batch is queued."}] * crowd
