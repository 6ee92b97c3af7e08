"""The health sensor as Dagster evaluates it: on a real instance, with real mail, PostHog and internal API servers."""

import dagster as dg
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.definitions import definitions
from seedtrust_ops.monitoring.job_health_sensor import job_health_sensor
from seedtrust_ops.sandbox.mailbox.process import MailboxProcess
from seedtrust_ops.sandbox.outside.control import InternalApiServer, PostHogServer
from seedtrust_ops.tables import Alert
from seedtrust_ops_tests.monitoring.conftest import ON_CALL

pytestmark = pytest.mark.usefixtures("watching_environment")


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> tuple[str, str]:
    """Evaluate the sensor; return what it says and its cursor."""
    resources = {name: definitions.resources[name] for name in job_health_sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions, resources=resources)
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
