"""The health sensor as Dagster evaluates it: on a real instance, with real mail, PostHog and internal API servers."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import ScheduleInstigatorData, SensorInstigatorData
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.config import get_settings
from seedtrust_ops.definitions import defs
from seedtrust_ops.monitoring import alert_channels
from seedtrust_ops.monitoring.job_health_sensor import Memory, job_health_sensor
from seedtrust_ops.orchestration import dagster_resources
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import InternalApiServer, PostHogServer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Alert
from seedtrust_ops_tests.monitoring.conftest import ON_CALL
from seedtrust_ops_tests.support.ticks import Ticker

pytestmark = pytest.mark.usefixtures("watching_environment")


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[str, str]:
    """Evaluate the sensor; return what it says and its cursor."""
    resources = {name: defs.resources[name] for name in job_health_sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs, resources=resources)
    result = job_health_sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert context.cursor is not None
    return result.skip_message or "", context.cursor


def test_trouble_is_told_once_by_every_way_and_so_is_its_end(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
) -> None:
    said, cursor = tick(instance)
    assert said.startswith("0 in trouble; alerts: 0 opened, 0 resolved; 0 letters")
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'a drill')"))
    for _ in range(3):
        said, cursor = tick(instance, cursor)
    with sessions.begin() as session:
        session.execute(text("delete from ops.switches"))
    for _ in range(3):
        said, cursor = tick(instance, cursor)

    with sessions() as session:
        (alert,) = session.scalars(select(Alert)).all()
    assert (alert.rule, alert.subject, alert.severity) == ("transfers_halted", "transfers", "HIGH")
    letters = sorted((letter.recipient, letter.subject) for letter in mailbox.control.letters())
    assert letters == sorted(
        (address, subject)
        for address in ON_CALL
        for subject in ("HIGH: transfers halted, transfers", "Over: transfers halted, transfers")
    )
    assert [event["event"] for event in posthog.events()] == ["alert_opened", "alert_resolved"]
    assert [(post["component"], post["status"]) for post in internal_api.posts()] == [
        ("jobs", "up"),
        ("jobs", "degraded"),
        ("jobs", "up"),
    ]


def open_alerts(sessions: sessionmaker[Session]) -> dict[str, tuple[str, str]]:
    """Rule and severity of every open alert, by subject."""
    with sessions() as session:
        rows = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
        return {row.subject: (row.rule, row.severity) for row in rows}


def remembering(awake_since: datetime) -> str:
    """The cursor of a daemon that has been there since, without a break."""
    return Memory(last_look=datetime.now(UTC), awake_since=awake_since).model_dump_json()


def test_schedules_and_sensors_that_stopped_are_told_unless_a_person_switched_them_off_or_the_daemon_was_away(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session]
) -> None:
    now = datetime.now(UTC)
    an_hour_ago = now - timedelta(hours=1)
    schedule = ScheduleInstigatorData("* * * * *", an_hour_ago.timestamp())
    sensor = SensorInstigatorData(min_interval=30, last_sensor_start_timestamp=an_hour_ago.timestamp())
    ticked = {
        "auto_heal_huntington_batches_schedule": (schedule, "RUNNING", an_hour_ago),
        "report_generation_schedule": (schedule, "STOPPED", an_hour_ago),
        "huntington_batch_sensor": (sensor, "RUNNING", an_hour_ago),
        "job_run_sensor": (sensor, "RUNNING", now - timedelta(seconds=5)),
        "pending_dr_sensor": (sensor, "STOPPED", an_hour_ago),
    }
    for name, (state, status, last) in ticked.items():
        kind = InstigatorType.SCHEDULE if state is schedule else InstigatorType.SENSOR
        ticker = Ticker(instance, name, kind)
        ticker.known(state, status)
        ticker.tick(last)

    tick(instance, remembering(now - timedelta(seconds=30)))
    assert open_alerts(sessions) == {}
    # It was last there long ago: whatever is late has been late because of that.
    long_ago = Memory(last_look=an_hour_ago, awake_since=an_hour_ago)
    tick(instance, long_ago.model_dump_json())
    assert open_alerts(sessions) == {}

    tick(instance, remembering(an_hour_ago))
    assert open_alerts(sessions) == {
        "auto_heal_huntington_batches_schedule": ("schedule_missed", "HIGH"),
        "huntington_batch_sensor": ("schedule_missed", "CRITICAL"),
    }
    for name in ("auto_heal_huntington_batches_schedule", "huntington_batch_sensor"):
        kind = InstigatorType.SENSOR if name.endswith("sensor") else InstigatorType.SCHEDULE
        Ticker(instance, name, kind).tick(datetime.now(UTC))
    tick(instance, remembering(an_hour_ago))
    assert open_alerts(sessions) == {}


def test_cursor_that_can_not_be_read_means_a_first_look(instance: dg.DagsterInstance) -> None:
    said, cursor = tick(instance, "what?")
    assert said.startswith("0 in trouble")
    assert Memory.model_validate_json(cursor).last_asked.keys() >= {"ledger_mismatch", "schedule_missed"}


def test_sensor_is_on_by_default_and_launches_nothing() -> None:
    assert job_health_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert job_health_sensor.targets == []


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server takes connections and never says a word."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        yield silent.getsockname()[1]


def test_tick_comes_to_its_end_although_everything_outside_hangs(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    silent_port: int,
) -> None:
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'a drill')"))
    address = f"http://127.0.0.1:{silent_port}"
    for name in ("POSTHOG_HOST", "INTERNAL_API_URL", "HEARTBEAT_URL"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", str(silent_port))
    get_settings.cache_clear()
    monkeypatch.setattr(alert_channels, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(dagster_resources, "PostHog", partial(PostHog, timeout_seconds=0.5))

    said, _ = tick(instance)

    assert said.startswith("1 in trouble; alerts: 1 opened, 0 resolved; 0 letters and 0 events delivered.")
    for words in ("PostHog at", "The internal API", "The mail server", "The monitor at HEARTBEAT_URL"):
        assert words in said
    assert open_alerts(sessions) == {"transfers": ("transfers_halted", "HIGH")}


def test_monitor_is_pinged_and_told_to_fail_only_where_trouble_can_not_be_told(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    internal_api: InternalApiServer,
) -> None:
    """The internal API stands in for the monitor: it keeps what is posted to it."""
    monkeypatch.setenv("HEARTBEAT_URL", f"{internal_api.url}/check-1")
    for name in ("ALERT_EMAILS", "POSTHOG_API_KEY", "INTERNAL_API_URL", "SMTP_HOST"):
        monkeypatch.delenv(name)
    get_settings.cache_clear()
    _, cursor = tick(instance)
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'a drill')"))
    for _ in range(2):
        _, cursor = tick(instance, cursor)
    monkeypatch.setenv("INTERNAL_API_URL", internal_api.url)
    get_settings.cache_clear()
    tick(instance, cursor)
    pings = [kept["path"] for kept in internal_api.kept() if kept["path"] != "/status"]
    assert pings == ["/check-1", "/check-1/fail", "/check-1/fail", "/check-1"]
