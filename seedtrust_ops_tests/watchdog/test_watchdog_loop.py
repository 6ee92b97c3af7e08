"""The watchdog with real processes: a killed or frozen daemon, a stopped database server, and hanging ticks."""

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

from seedtrust_ops.config import environment_for_child
from seedtrust_ops.config.databases import DatabaseSettings
from seedtrust_ops.dagster_db.daemon_activity import DAEMON_TYPES
from seedtrust_ops.database import embedded_postgres
from seedtrust_ops.database.engine import APPLICATION_DATABASE, DAGSTER_DATABASE, create_application_engine
from seedtrust_ops.migrations.migrator import migrate
from seedtrust_ops.resources.component_status import InternalApi
from seedtrust_ops.tables import Alert, AlertNotification
from seedtrust_ops.watchdog import state_file, watchdog_loop
from seedtrust_ops.watchdog.probes import ProbeResult, QueryFailed, TimedQuery, application_database_url
from seedtrust_ops.watchdog.watchdog_loop import Watchdog, WatchdogAlreadyRunning, hold_watchdog_lock
from seedtrust_ops_tests.support.dagster_homes import DagsterHome
from seedtrust_ops_tests.support.databases import plain_url, postgres_folder
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.ticks import TickRecorder, record_heartbeat
from seedtrust_ops_tests.support.waiters import wait_until
from seedtrust_ops_tests.watchdog.conftest import ON_CALL, WatchdogSetup

# Starting servers and daemons takes long on a busy machine.
pytestmark = pytest.mark.timeout(900)

HEARTBEAT_LIMIT_SECONDS = 4.0


CHANNELS = ("email", "internal_api", "posthog")
OPENED = {(channel, "opened") for channel in CHANNELS}
OPENED_AND_RESOLVED = OPENED | {(channel, "resolved") for channel in CHANNELS}


def notifications_by_alert(session: Session) -> dict[int, set[tuple[str, str]]]:
    """Which channel is recorded to have notified people of what, by alert."""
    found: dict[int, set[tuple[str, str]]] = {}
    for row in session.scalars(select(AlertNotification)):
        found.setdefault(row.alert_id, set()).add((row.channel, row.notification))
    return found


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
def test_killed_and_frozen_daemons_alert_once_and_resolve_once(
    watchdog_setup: WatchdogSetup,
    set_variables: SetVariables,
    dagster_home: DagsterHome,
    sessions: sessionmaker[Session],
) -> None:
    set_variables(**dagster_home.variables)
    watchdog = watchdog_setup.create(heartbeat_seconds=HEARTBEAT_LIMIT_SECONDS)
    watchdog.run_once()
    wait_until(watchdog.run_once, every=0.5, seconds=120, what="an incident without any daemon")
    with daemon(dagster_home) as process:
        wait_until(lambda: not watchdog.run_once(), every=0.5, seconds=120, what="the first heartbeats")
        process.send_signal(signal.SIGSTOP)
        wait_until(watchdog.run_once, every=0.5, seconds=120, what="the frozen daemon's silence")
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not watchdog.run_once(), every=0.5, seconds=120, what="the resumed daemon's heartbeats")
        process.kill()
        wait_until(watchdog.run_once, every=0.5, seconds=120, what="the killed daemon's silence")
        # A restarted watchdog must not repeat the alert.
        watchdog_setup.create(heartbeat_seconds=HEARTBEAT_LIMIT_SECONDS).run_once()
    opened, resolved = (
        "SeedTrust Ops, CRITICAL: daemon silent (daemon)",
        "SeedTrust Ops, resolved: daemon silent (daemon)",
    )
    subjects = watchdog_setup.subjects
    # On an overloaded machine the daemon may be silent once more in between, but emails always come in pairs.
    assert subjects == [opened, resolved] * (len(subjects) // 2) + [opened]
    assert len(subjects) >= 5
    with sessions() as session:
        alerts = session.scalars(select(Alert).order_by(Alert.id)).all()
        delivered = notifications_by_alert(session)
    assert len(alerts) == subjects.count(opened)
    assert {alert.rule for alert in alerts} == {"daemon_silent"}
    assert [alert.resolved_at is None for alert in alerts] == [False] * (len(alerts) - 1) + [True]
    assert [delivered[alert.id] for alert in alerts] == [OPENED_AND_RESOLVED] * (len(alerts) - 1) + [OPENED]
    assert [post["status"] for post in watchdog_setup.internal_api.posted_statuses()][-3:] == ["down", "up", "down"]


@pytest.mark.usefixtures("bank_environment")
def test_hanging_ticks_alert_while_heartbeats_continue(
    watchdog_setup: WatchdogSetup, set_variables: SetVariables, dagster_home: DagsterHome, instance: dg.DagsterInstance
) -> None:
    set_variables(**dagster_home.variables)
    ago = datetime.now(UTC) - timedelta(minutes=10)
    for name in ("job_health_sensor", "pending_dr_sensor", "job_run_sensor"):
        ticker = TickRecorder(instance, name, InstigatorType.SENSOR)
        ticker.register(SensorInstigatorData(min_interval=5, last_sensor_start_timestamp=ago.timestamp()))
        ticker.tick(ago)
        ticker.tick(ago + timedelta(seconds=5), "STARTED")
    ticker.tick(datetime.now(UTC))
    record_heartbeat(instance)
    watchdog = watchdog_setup.create()
    assert {notified.incident.subject for notified in watchdog.run_once()} == {"job_health_sensor", "pending_dr_sensor"}
    watchdog.run_once()
    assert watchdog_setup.subjects == ["SeedTrust Ops, HIGH: ticks stopped (job_health_sensor) and 1 more"]
    TickRecorder(instance, "job_health_sensor", InstigatorType.SENSOR).tick(datetime.now(UTC))
    TickRecorder(instance, "pending_dr_sensor", InstigatorType.SENSOR).tick(datetime.now(UTC))
    record_heartbeat(instance)
    assert watchdog.run_once() == []
    assert watchdog_setup.subjects[1:] == ["SeedTrust Ops, resolved: ticks stopped (job_health_sensor) and 1 more"]
    assert [post["status"] for post in watchdog_setup.internal_api.posted_statuses()] == ["degraded", "up"]
    assert {event["properties"]["subject"] for event in watchdog_setup.posthog.events("alert_resolved")} == {
        "job_health_sensor",
        "pending_dr_sensor",
    }


@pytest.fixture
def own_server(set_variables: SetVariables) -> Iterator[Path]:
    """A server with both databases that a test may stop; the environment variables point to it."""
    with postgres_folder() as folder:
        server = embedded_postgres.start(folder / "d")
        application = embedded_postgres.ensure_database(server, APPLICATION_DATABASE)
        engine = create_application_engine(application)
        migrate(engine, create_platform=True)
        engine.dispose()
        dagster = embedded_postgres.ensure_database(server, DAGSTER_DATABASE)
        set_variables(SEEDTRUST_DATABASE_URL=plain_url(application), DAGSTER_POSTGRES_URL=plain_url(dagster))
        yield folder / "d"
        embedded_postgres.stop(folder / "d")


def test_database_outage_alerts_at_once_and_is_recorded_afterwards(
    own_server: Path, watchdog_setup: WatchdogSetup
) -> None:
    assert watchdog_setup.create(database_seconds=0).run_once() == []
    embedded_postgres.stop(own_server)
    watchdog_setup.mailbox.control.inject_fault("defer", times=1)
    watchdog = watchdog_setup.create(database_seconds=0)
    assert {notified.incident.key for notified in watchdog.run_once()} == {
        ("database_down", "application"),
        ("database_down", "dagster"),
    }
    assert watchdog_setup.subjects == []
    assert any("will be retried in the next round" in line for line in watchdog_setup.log_lines)
    watchdog.run_once()
    watchdog_setup.create(database_seconds=0).run_once()
    assert watchdog_setup.subjects == ["SeedTrust Ops, CRITICAL: database down (application) and 1 more"]
    (email,) = watchdog_setup.mailbox.control.emails()
    assert "SEEDTRUST_DATABASE_URL is unavailable" in email.text
    assert "DAGSTER_POSTGRES_URL is unavailable" in email.text
    server = embedded_postgres.start(own_server)
    assert watchdog.run_once() == []
    assert watchdog_setup.subjects[1:] == ["SeedTrust Ops, resolved: database down (application) and 1 more"]
    engine = create_application_engine(server.set(drivername="postgresql+psycopg", database=APPLICATION_DATABASE))
    with Session(engine) as session:
        alerts = session.scalars(select(Alert).order_by(Alert.subject)).all()
        delivered = notifications_by_alert(session)
    engine.dispose()
    assert [(alert.rule, alert.subject) for alert in alerts] == [
        ("database_down", "application"),
        ("database_down", "dagster"),
    ]
    assert [alert.resolved_at is not None and delivered[alert.id] for alert in alerts] == [OPENED_AND_RESOLVED] * 2
    assert [post["status"] for post in watchdog_setup.internal_api.posted_statuses()] == ["down", "up"]
    assert (
        len(watchdog_setup.posthog.events("alert_opened")) == len(watchdog_setup.posthog.events("alert_resolved")) == 2
    )


@pytest.mark.usefixtures("bank_environment")
def test_lost_state_file_is_restored_from_what_each_channel_reported(
    watchdog_setup: WatchdogSetup, set_variables: SetVariables, dagster_home: DagsterHome
) -> None:
    set_variables(**dagster_home.variables, POSTHOG_API_KEY=None)
    assert len(watchdog_setup.create(heartbeat_seconds=0).run_once()) == 1
    (watchdog_setup.folder / state_file.STATE_FILE).unlink()
    set_variables(**watchdog_setup.posthog.environment)
    assert len(watchdog_setup.create(heartbeat_seconds=0).run_once()) == 1
    assert len(watchdog_setup.subjects) == 1
    # PostHog was not configured when the incident opened, so it is notified now.
    assert len(watchdog_setup.posthog.events("alert_opened")) == 1


def test_hanging_query_times_out_and_blocks_a_second_one(database_url: URL) -> None:
    database = TimedQuery("SEEDTRUST_DATABASE_URL", lambda: database_url, deadline_seconds=0.3)
    release = threading.Event()
    started = []

    def hang(_connection: object) -> None:
        started.append(1)
        release.wait(300)

    for _ in range(3):
        with pytest.raises(QueryFailed, match=r"did not respond within 0\.3 s"):
            database.run(hang)
    # Connecting may take longer than the deadline.
    wait_until(lambda: started, what="the query to start")
    with pytest.raises(QueryFailed, match=r"did not respond within 0\.3 s"):
        database.run(hang)
    assert len(started) == 1
    release.set()
    working_database = TimedQuery("SEEDTRUST_DATABASE_URL", lambda: database_url)
    assert working_database.run(lambda connection: connection.scalar(text("select 1"))) == 1


@pytest.mark.usefixtures("child_processes")
def test_embedded_server_is_found_but_never_started(
    own_server: Path, monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> None:
    monkeypatch.setattr(DatabaseSettings, "embedded_directory", own_server)
    set_variables(SEEDTRUST_DATABASE_URL=None)
    database = TimedQuery("SEEDTRUST_DATABASE_URL", application_database_url)
    assert database.run(lambda connection: connection.scalar(text("select count(*) from users"))) == 0
    embedded_postgres.stop(own_server)
    with pytest.raises(QueryFailed, match="is not running"):
        database.run(lambda connection: connection.scalar(text("select 1")))
    assert not embedded_postgres.is_running(own_server)


def test_refused_variables_are_incidents_or_log_lines(
    watchdog_setup: WatchdogSetup, set_variables: SetVariables
) -> None:
    set_variables(
        **dict.fromkeys(("SEEDTRUST_DATABASE_URL", "DAGSTER_POSTGRES_URL"), "postgresql://db.example/d"),
        POSTHOG_HOST="http://posthog.example",
    )
    watchdog_setup.create(grace_seconds=0, database_seconds=0, heartbeat_seconds=45).run_once()
    (email,) = watchdog_setup.mailbox.control.emails()
    assert "SEEDTRUST_DATABASE_URL is refused" in email.text
    assert any("POSTHOG_HOST is refused" in line for line in watchdog_setup.log_lines)


@pytest.mark.usefixtures("bank_environment")
def test_failed_round_is_logged_and_the_next_one_follows(
    watchdog_setup: WatchdogSetup,
    set_variables: SetVariables,
    dagster_home: DagsterHome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(**dagster_home.variables)
    watchdog = watchdog_setup.create()
    probe = watchdog._prober.probe
    failures = iter([RuntimeError("a bug"), RuntimeError("a bug")])

    def fail_twice() -> ProbeResult:
        for failure in failures:
            raise failure
        return probe()

    monkeypatch.setattr(watchdog._prober, "probe", fail_twice)
    stop = threading.Event()
    loop = threading.Thread(
        target=watchdog_loop.run_until_stopped,
        args=(watchdog, stop),
        kwargs={"interval_seconds": 0.05, "log": watchdog_setup.log_lines.append},
    )
    loop.start()
    try:
        wait_until((watchdog_setup.folder / state_file.STATE_FILE).is_file, what="a successful round")
    finally:
        stop.set()
        loop.join(120)
    assert sum("This round failed" in line for line in watchdog_setup.log_lines) == 2


def down(watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    """Let every probe of this watchdog find both databases unavailable."""
    result = ProbeResult(datetime.now(UTC), "The database is gone.", "The database is gone.", None)
    monkeypatch.setattr(watchdog._prober, "probe", lambda: result)
    return watchdog


def test_full_disk_keeps_nobody_from_being_notified(
    watchdog_setup: WatchdogSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = down(watchdog_setup.create(database_seconds=0), monkeypatch)
    (watchdog_setup.folder / state_file.STATE_FILE).mkdir(parents=True)
    for _ in range(2):
        watchdog.run_once()
    assert watchdog_setup.subjects == ["SeedTrust Ops, CRITICAL: database down (application) and 1 more"]
    assert sum("Could not save the state" in line for line in watchdog_setup.log_lines) == 1


def test_mail_server_that_hangs_up_after_one_email_gets_no_second_copy(
    watchdog_setup: WatchdogSetup, monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> None:
    set_variables(ALERT_EMAILS=f"{ON_CALL},lead@seedtrust.example")
    watchdog = down(watchdog_setup.create(database_seconds=0), monkeypatch)
    for _ in range(3):
        watchdog_setup.mailbox.control.clear_faults()
        watchdog_setup.mailbox.control.inject_fault("drop_at_mail", skip=1, times=None)
        watchdog.run_once()
    assert len(watchdog_setup.mailbox.control.emails()) == 1


def test_bug_in_one_channel_repeats_no_notification_of_the_others(
    watchdog_setup: WatchdogSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = down(watchdog_setup.create(database_seconds=0), monkeypatch)

    def fail(_self: object, _status: object) -> None:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(InternalApi, "post", fail)
    for _ in range(2):
        watchdog.run_once()
    assert len(watchdog_setup.subjects) == 1
    assert any("internal_api failed unexpectedly" in line for line in watchdog_setup.log_lines)


def test_shadow_mode_leaves_the_status_of_jobs_to_the_legacy_systems(
    watchdog_setup: WatchdogSetup, monkeypatch: pytest.MonkeyPatch, set_variables: SetVariables
) -> None:
    set_variables(SEEDTRUST_SHADOW="1")
    down(watchdog_setup.create(database_seconds=0), monkeypatch).run_once()
    assert len(watchdog_setup.subjects) == 1
    assert watchdog_setup.internal_api.posted_statuses() == []


def test_second_watchdog_of_a_home_is_refused(tmp_path: Path) -> None:
    with hold_watchdog_lock(tmp_path), pytest.raises(WatchdogAlreadyRunning), hold_watchdog_lock(tmp_path):
        pass
    with hold_watchdog_lock(tmp_path):
        pass


def test_watchdog_command_imports_no_dagster(own_server: Path, tmp_path: Path, watchdog_setup: WatchdogSetup) -> None:
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

    # No daemon has ever run here, which is not an incident until the heartbeat limit has passed.
    assert "exit code 0\ndagster []" in run()
    embedded_postgres.stop(own_server)
    variables["SEEDTRUST_WATCHDOG_DATABASE_SECONDS"] = "0"
    output = run()
    assert "CRITICAL: database_down dagster: The database in DAGSTER_POSTGRES_URL is unavailable" in output
    assert "exit code 1\ndagster []" in output
    assert len(watchdog_setup.subjects) == 1


def test_watched_daemon_types_are_required_by_this_instance(instance: dg.DagsterInstance) -> None:
    assert set(DAEMON_TYPES) <= set(instance.get_required_daemon_types())
