"""The health sensor as Dagster evaluates it, on a real instance with real mail, PostHog and internal API servers."""

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

from seedtrust_ops.definitions import defs
from seedtrust_ops.domain.alerts.store import open_alert
from seedtrust_ops.monitoring import alert_channels
from seedtrust_ops.monitoring.job_health_sensor import HealthCursor, job_health_sensor
from seedtrust_ops.orchestration import dagster_resources
from seedtrust_ops.resources import healthcheck_ping
from seedtrust_ops.resources.posthog_client import PostHog
from seedtrust_ops.sandbox.external_services.control_client import InternalApiServer, PostHogServer
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.tables import Alert
from seedtrust_ops_tests.monitoring.conftest import ON_CALL
from seedtrust_ops_tests.support.environment import SetVariables
from seedtrust_ops_tests.support.ticks import TickRecorder

pytestmark = pytest.mark.usefixtures("health_environment")


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[str, str]:
    """Evaluate the sensor; return its skip message and its cursor."""
    resources = {name: defs.resources[name] for name in job_health_sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs, resources=resources)
    result = job_health_sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert context.cursor is not None
    return result.skip_message or "", context.cursor


def test_alert_is_notified_once_per_channel_when_opened_and_resolved(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    mailbox: MailboxProcess,
    posthog: PostHogServer,
    internal_api: InternalApiServer,
) -> None:
    message, cursor = tick(instance)
    assert message.startswith("Findings: 0. Alerts: 0 opened, 0 resolved. Emails sent: 0.")
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'drill')"))
    for _ in range(3):
        message, cursor = tick(instance, cursor)
    with sessions.begin() as session:
        session.execute(text("delete from ops.switches"))
    for _ in range(3):
        message, cursor = tick(instance, cursor)

    with sessions() as session:
        (alert,) = session.scalars(select(Alert)).all()
    assert (alert.rule, alert.subject, alert.severity) == ("transfers_halted", "transfers", "HIGH")
    emails = sorted((email.recipient, email.subject) for email in mailbox.control.emails())
    assert emails == sorted(
        (address, subject)
        for address in ON_CALL
        for subject in ("HIGH: transfers halted, transfers", "Resolved: transfers halted, transfers")
    )
    assert [event["event"] for event in posthog.events()] == ["alert_opened", "alert_resolved"]
    assert [(post["component"], post["status"]) for post in internal_api.posted_statuses()] == [
        ("jobs", "up"),
        ("jobs", "degraded"),
        ("jobs", "up"),
    ]


def test_digest_of_the_day_waits_until_there_is_an_address(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    mailbox: MailboxProcess,
    set_variables: SetVariables,
) -> None:
    set_variables(ALERT_EMAILS=None, SEEDTRUST_HEALTH_DIGEST_HOUR="0")
    with sessions.begin() as session:
        open_alert(session, "bank_disagrees", "2026-03-03", "MEDIUM", "They differ.")
    _, cursor = tick(instance)
    set_variables(ALERT_EMAILS=", ".join(ON_CALL))
    for _ in range(2):
        _, cursor = tick(instance, cursor)
    assert len(mailbox.control.emails()) == len(ON_CALL)


def open_alerts(sessions: sessionmaker[Session]) -> dict[str, tuple[str, str]]:
    """Return the rule and severity of every open alert, by subject."""
    with sessions() as session:
        rows = session.scalars(select(Alert).where(Alert.resolved_at.is_(None)))
        return {row.subject: (row.rule, row.severity) for row in rows}


def cursor_with_daemon_up_since(daemon_up_since: datetime) -> str:
    """Return the cursor of a daemon that has been up since that time without interruption."""
    return HealthCursor(last_tick_at=datetime.now(UTC), daemon_up_since=daemon_up_since).model_dump_json()


def test_missed_ticks_alert_unless_stopped_by_a_person_or_daemon_down(
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
        ticker = TickRecorder(instance, name, kind)
        ticker.register(state, status)
        ticker.tick(last)

    tick(instance, cursor_with_daemon_up_since(now - timedelta(seconds=30)))
    assert open_alerts(sessions) == {}
    # The last tick was long ago, so ticks are late because the daemon was down.
    old_cursor = HealthCursor(last_tick_at=an_hour_ago, daemon_up_since=an_hour_ago)
    tick(instance, old_cursor.model_dump_json())
    assert open_alerts(sessions) == {}

    tick(instance, cursor_with_daemon_up_since(an_hour_ago))
    assert open_alerts(sessions) == {
        "auto_heal_huntington_batches_schedule": ("schedule_missed", "HIGH"),
        "huntington_batch_sensor": ("schedule_missed", "CRITICAL"),
    }
    for name in ("auto_heal_huntington_batches_schedule", "huntington_batch_sensor"):
        kind = InstigatorType.SENSOR if name.endswith("sensor") else InstigatorType.SCHEDULE
        TickRecorder(instance, name, kind).tick(datetime.now(UTC))
    tick(instance, cursor_with_daemon_up_since(an_hour_ago))
    assert open_alerts(sessions) == {}


def test_invalid_cursor_is_treated_as_the_first_tick(instance: dg.DagsterInstance) -> None:
    message, cursor = tick(instance, "what?")
    assert message.startswith("Findings: 0.")
    assert HealthCursor.model_validate_json(cursor).last_evaluated.keys() >= {"ledger_mismatch", "schedule_missed"}


def test_sensor_runs_by_default_and_launches_nothing() -> None:
    assert job_health_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert job_health_sensor.targets == []


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose server accepts connections and never responds."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        yield silent.getsockname()[1]


def test_tick_ends_in_time_although_every_external_service_hangs(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    monkeypatch: pytest.MonkeyPatch,
    set_variables: SetVariables,
    silent_port: int,
) -> None:
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'drill')"))
    address = f"http://127.0.0.1:{silent_port}"
    set_variables(
        **dict.fromkeys(("POSTHOG_HOST", "INTERNAL_API_URL", "HEARTBEAT_URL"), address),
        SMTP_HOST="127.0.0.1",
        SMTP_PORT=str(silent_port),
    )
    monkeypatch.setattr(alert_channels, "RESPONSE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(healthcheck_ping, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(dagster_resources, "PostHog", partial(PostHog, timeout_seconds=0.5))

    message, _ = tick(instance)

    assert message.startswith("Findings: 1. Alerts: 1 opened, 0 resolved. Emails sent: 0. Events sent: 0.")
    for text_part in ("PostHog at", "The internal API", "The mail server", "The monitor at HEARTBEAT_URL"):
        assert text_part in message
    assert open_alerts(sessions) == {
        "transfers": ("transfers_halted", "HIGH"),
        "mail server": ("notifications_failing", "HIGH"),
    }


def test_tick_reports_every_channel_that_is_refused_and_goes_on(
    instance: dg.DagsterInstance, sessions: sessionmaker[Session], set_variables: SetVariables
) -> None:
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'drill')"))
    channels = ("POSTHOG_HOST", "INTERNAL_API_URL", "HEARTBEAT_URL")
    set_variables(**dict.fromkeys(channels, "http://service.example"))
    message, _ = tick(instance)
    for variable in channels:
        assert f"{variable} is refused" in message
    assert open_alerts(sessions) == {"transfers": ("transfers_halted", "HIGH")}


def test_monitor_gets_fail_pings_only_while_no_channel_works(
    instance: dg.DagsterInstance,
    sessions: sessionmaker[Session],
    set_variables: SetVariables,
    internal_api: InternalApiServer,
) -> None:
    """The internal API server stands in for the monitor, because it records its requests."""
    channels = ("ALERT_EMAILS", "POSTHOG_API_KEY", "INTERNAL_API_URL", "SMTP_HOST")
    set_variables(HEARTBEAT_URL=f"{internal_api.url}/check-1", **dict.fromkeys(channels))
    _, cursor = tick(instance)
    with sessions.begin() as session:
        session.execute(text("insert into ops.switches (name, reason) values ('transfers_halted', 'drill')"))
    for _ in range(2):
        _, cursor = tick(instance, cursor)
    set_variables(INTERNAL_API_URL=internal_api.url)
    tick(instance, cursor)
    pings = [request["path"] for request in internal_api.requests() if request["path"] != "/status"]
    assert pings == ["/check-1", "/check-1/fail", "/check-1/fail", "/check-1"]
