"""The watchdog against the real thing: a daemon that is killed or frozen, a server that is stopped, ticks that hang."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData
from sqlalchemy import select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import environment_for_child, get_settings
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.dagster_db.heartbeats import PARTS
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.tables import Alert
from seedtrust_ops.watchdog import state_file, watchdog_loop
from seedtrust_ops.watchdog.probes import NoResponse, TimedQuery, application_database
from seedtrust_ops.watchdog.watchdog_loop import AnotherWatchdog, only_watchdog
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.databases import folder_for_a_server, plain
from seedtrust_ops_tests.support.ticks import Ticker, beat
from seedtrust_ops_tests.support.waiters import wait_until
from seedtrust_ops_tests.watchdog.conftest import Change, Watch

# Servers and daemons are started here, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(900)

PATIENCE_SECONDS = 4.0


@contextmanager
def daemon(home: DagsterHome) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "seedtrust_ops_tests.watchdog.heartbeat_daemon"],
        env=environment_for_child(home.variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("bank_environment")
def test_killed_and_frozen_daemons_are_told_once_each_and_once_that_they_are_back(
    watch: Watch, change: Change, dagster_home: DagsterHome, sessions: sessionmaker[Session]
) -> None:
    change(**dagster_home.variables)
    dog = watch.start(heartbeat_seconds=PATIENCE_SECONDS)
    dog.look()
    wait_until(dog.look, every=0.5, seconds=120, what="the silence of a daemon that never was")
    with daemon(dagster_home) as process:
        wait_until(lambda: not dog.look(), every=0.5, seconds=120, what="the first heartbeats")
        process.send_signal(signal.SIGSTOP)
        wait_until(dog.look, every=0.5, seconds=120, what="the frozen daemon's silence")
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not dog.look(), every=0.5, seconds=120, what="the thawed daemon's heartbeats")
        process.kill()
        wait_until(dog.look, every=0.5, seconds=120, what="the killed daemon's silence")
        # Whoever starts the watchdog again must not be told again.
        watch.start(heartbeat_seconds=PATIENCE_SECONDS).look()
    begun, over = "SeedTrust Ops, CRITICAL: daemon silent (daemon)", "SeedTrust Ops, over: daemon silent (daemon)"
    subjects = watch.subjects
    # On a machine that starves the daemon it may seem silent once more in between; told in pairs it always is.
    assert subjects == [begun, over] * (len(subjects) // 2) + [begun]
    assert len(subjects) >= 5
    with sessions() as session:
        alerts = session.scalars(select(Alert).order_by(Alert.id)).all()
    assert len(alerts) == subjects.count(begun)
    assert all(alert.notified_at is not None and alert.rule == "daemon_silent" for alert in alerts)
    assert [alert.resolved_at is None for alert in alerts] == [False] * (len(alerts) - 1) + [True]
    assert all(alert.resolution_notified_at for alert in alerts[:-1])
    assert [post["status"] for post in watch.internal_api.posts()][-3:] == ["down", "up", "down"]


@pytest.mark.usefixtures("bank_environment")
def test_ticks_that_hang_while_the_heart_beats_are_told(
    watch: Watch, change: Change, dagster_home: DagsterHome, instance: dg.DagsterInstance
) -> None:
    change(**dagster_home.variables)
    ago = datetime.now(UTC) - timedelta(minutes=10)
    for name in ("job_health_sensor", "pending_dr_sensor", "job_run_sensor"):
        ticker = Ticker(instance, name, InstigatorType.SENSOR)
        ticker.known(SensorInstigatorData(min_interval=5, last_sensor_start_timestamp=ago.timestamp()))
        ticker.tick(ago)
        ticker.tick(ago + timedelta(seconds=5), "STARTED")
    ticker.tick(datetime.now(UTC))
    beat(instance)
    dog = watch.start()
    assert {one.trouble.subject for one in dog.look()} == {"job_health_sensor", "pending_dr_sensor"}
    dog.look()
    assert watch.subjects == ["SeedTrust Ops, HIGH: ticks stopped (job_health_sensor) and 1 more"]
    Ticker(instance, "job_health_sensor", InstigatorType.SENSOR).tick(datetime.now(UTC))
    Ticker(instance, "pending_dr_sensor", InstigatorType.SENSOR).tick(datetime.now(UTC))
    beat(instance)
    assert dog.look() == []
    assert watch.subjects[1:] == ["SeedTrust Ops, over: ticks stopped (job_health_sensor) and 1 more"]
    assert [post["status"] for post in watch.internal_api.posts()] == ["degraded", "up"]
    assert {event["properties"]["subject"] for event in watch.posthog.events("alert_resolved")} == {
        "job_health_sensor",
        "pending_dr_sensor",
    }


@pytest.fixture
def own_server(change: Change) -> Iterator[Path]:
    """A server with both databases that a test may stop, and the variables that name it."""
    with folder_for_a_server() as folder:
        server = embedded_postgres.start(folder / "d")
        application = embedded_postgres.ensure_database(server, APPLICATION_DATABASE)
        engine = create_application_engine(application)
        migrate(engine, create_platform=True)
        engine.dispose()
        dagster = embedded_postgres.ensure_database(server, DAGSTER_DATABASE)
        change(SEEDTRUST_DATABASE_URL=plain(application), DAGSTER_POSTGRES_URL=plain(dagster))
        yield folder / "d"
        embedded_postgres.stop(folder / "d")


def test_a_server_that_is_down_is_told_without_it_and_is_on_record_once_it_is_back(
    own_server: Path, watch: Watch
) -> None:
    assert watch.start(database_seconds=0).look() == []
    embedded_postgres.stop(own_server)
    watch.mailbox.control.order("postpone", times=1)
    dog = watch.start(database_seconds=0)
    assert {one.trouble.key for one in dog.look()} == {("database_down", "application"), ("database_down", "dagster")}
    assert watch.subjects == []
    assert any("tried again at the next look" in line for line in watch.said)
    dog.look()
    watch.start(database_seconds=0).look()
    assert watch.subjects == ["SeedTrust Ops, CRITICAL: database down (application) and 1 more"]
    (letter,) = watch.mailbox.control.letters()
    assert "SEEDTRUST_DATABASE_URL can't be used" in letter.text
    assert "DAGSTER_POSTGRES_URL can't be used" in letter.text
    server = embedded_postgres.start(own_server)
    assert dog.look() == []
    assert watch.subjects[1:] == ["SeedTrust Ops, over: database down (application) and 1 more"]
    engine = create_application_engine(server.set(drivername="postgresql+psycopg", database=APPLICATION_DATABASE))
    with Session(engine) as session:
        alerts = session.scalars(select(Alert).order_by(Alert.subject)).all()
    engine.dispose()
    assert [(alert.rule, alert.subject) for alert in alerts] == [
        ("database_down", "application"),
        ("database_down", "dagster"),
    ]
    assert all(alert.resolved_at and alert.notified_at and alert.resolution_notified_at for alert in alerts)
    assert [post["status"] for post in watch.internal_api.posts()] == ["down", "up"]
    assert len(watch.posthog.events("alert_opened")) == len(watch.posthog.events("alert_resolved")) == 2


@pytest.mark.usefixtures("bank_environment")
def test_lost_memory_is_made_up_for_by_the_alerts_that_are_open(
    watch: Watch, change: Change, dagster_home: DagsterHome
) -> None:
    change(**dagster_home.variables)
    dog = watch.start(heartbeat_seconds=0)
    assert len(dog.look()) == 1
    (watch.folder / state_file.FILE).unlink()
    assert len(watch.start(heartbeat_seconds=0).look()) == 1
    assert len(watch.subjects) == 1


def test_a_question_that_hangs_is_given_up_and_no_second_one_hangs_beside_it(database_url: URL) -> None:
    inquirer = TimedQuery("SEEDTRUST_DATABASE_URL", lambda: database_url, deadline_seconds=0.3)
    release = threading.Event()
    asked = []

    def hang(_connection: object) -> None:
        asked.append(1)
        release.wait(300)

    for _ in range(3):
        with pytest.raises(NoResponse, match=r"gave no answer for 0\.3 s"):
            inquirer.ask(hang)
    # Its connection may take longer than the deadline.
    wait_until(lambda: asked, what="the question to be asked")
    with pytest.raises(NoResponse, match=r"gave no answer for 0\.3 s"):
        inquirer.ask(hang)
    assert len(asked) == 1
    release.set()
    patient = TimedQuery("SEEDTRUST_DATABASE_URL", lambda: database_url)
    assert patient.ask(lambda connection: connection.scalar(text("select 1"))) == 1


def test_embedded_server_is_found_where_it_runs_and_never_started(
    own_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEEDTRUST_DATABASE_URL")
    monkeypatch.setattr(DatabaseSettings, "embedded_directory", own_server)
    get_settings.cache_clear()
    inquirer = TimedQuery("SEEDTRUST_DATABASE_URL", application_database)
    assert inquirer.ask(lambda connection: connection.scalar(text("select count(*) from users"))) == 0
    embedded_postgres.stop(own_server)
    with pytest.raises(NoResponse, match="does not run"):
        inquirer.ask(lambda connection: connection.scalar(text("select 1")))
    assert not embedded_postgres.is_running(own_server)
    get_settings.cache_clear()


@pytest.mark.usefixtures("bank_environment")
def test_an_error_of_its_own_is_printed_and_the_next_look_comes(
    watch: Watch, change: Change, dagster_home: DagsterHome
) -> None:
    change(**dagster_home.variables)
    dog = watch.start()
    in_the_way = watch.folder / state_file.FILE
    in_the_way.mkdir(parents=True)
    stop = threading.Event()
    loop = threading.Thread(
        target=watchdog_loop.watch, args=(dog, stop), kwargs={"interval_seconds": 0.05, "say": watch.said.append}
    )
    loop.start()
    try:
        wait_until(lambda: sum("This look failed" in line for line in watch.said) >= 2, what="two looks that failed")
        in_the_way.rmdir()
        wait_until(in_the_way.is_file, what="a look that worked")
    finally:
        stop.set()
        loop.join(120)


def test_one_watchdog_a_home(tmp_path: Path) -> None:
    with only_watchdog(tmp_path), pytest.raises(AnotherWatchdog), only_watchdog(tmp_path):
        pass
    with only_watchdog(tmp_path):
        pass


def test_it_works_by_command_without_dagster_in_its_process(own_server: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "dagster.yaml").touch()
    script = (
        "import sys\n"
        "from seedtrust_ops.cli.main import app\n"
        "try:\n    app(['watchdog', '--once'])\n"
        "except SystemExit as end:\n    print('exit code', end.code)\n"
        "print('dagster', [name for name in sys.modules if name.partition('.')[0].startswith('dagster')])\n"
    )
    variables = environment_for_child({"DAGSTER_HOME": str(tmp_path)})

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
        return done.stdout

    # Nobody ever started a daemon here, which is borne for a while.
    assert "exit code 0\ndagster []" in run()
    embedded_postgres.stop(own_server)
    variables["SEEDTRUST_WATCHDOG_DATABASE_SECONDS"] = "0"
    ended = run()
    assert "CRITICAL: database_down dagster: The database of DAGSTER_POSTGRES_URL can't be used" in ended
    assert "exit code 1\ndagster []" in ended
    assert len(watch.subjects) == 1


def test_the_parts_that_are_watched_are_parts_that_this_projects_daemon_has(instance: dg.DagsterInstance) -> None:
    assert set(PARTS) <= set(instance.get_required_daemon_types())
