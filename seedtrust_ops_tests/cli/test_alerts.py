"""`seedtrust-ops alerts`: lists open alerts, acknowledges them, and resolves them manually."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.alerts.channel_state import Channel, Delivery, record_deliveries
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops_tests.support.case_factory import CaseFactory
from seedtrust_ops_tests.support.factories import Company

pytestmark = pytest.mark.usefixtures("bank_environment")


def run_alerts(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["alerts", *arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def alert_ids(sessions: sessionmaker[Session]) -> list[int]:
    """The IDs of an open HIGH alert, an open CRITICAL alert, and a resolved one."""
    with sessions.begin() as session:
        open_alert(session, "reports_waiting", "report requests", "HIGH", "3 wait.")
        open_alert(session, "batch_stuck", "batch 7", "CRITICAL", "Batch 7 is stuck.")
        open_alert(session, "bank_silent", "Huntington", "CRITICAL", "It does not respond.")
        resolve_alert(session, "bank_silent", "Huntington")
        return list(session.scalars(text("select id from ops.alerts order by id")))


@pytest.fixture
def maria(company: Company) -> str:
    """The email address of an active user."""
    email = "maria@seedtrust.test"
    CaseFactory(company.sessions).user("admin", email=email)
    return email


def test_empty_list_says_which_alerts_there_are_none_of(sessions: sessionmaker[Session]) -> None:
    assert run_alerts() == (0, "No open alerts.")
    assert run_alerts("--all") == (0, "No alerts.")
    assert run_alerts("--all", "--json") == (0, "[]")


@pytest.mark.parametrize(
    ("delivered", "shown"),
    [
        ([], "Notified: nobody. Owed: email, internal_api."),
        (["email opened"], "Notified: email. Owed: internal_api."),
        (["posthog opened", "email skipped"], "Notified: posthog. Owed: internal_api. Skipped: email, because"),
        (
            ["email opened", "internal_api opened", "internal_api again-1"],
            "Notified: email, internal_api. It is stuck.",
        ),
    ],
    ids=["none", "one", "skipped", "all"],
)
def test_list_shows_which_channels_have_notified_people_and_which_owe_it(
    sessions: sessionmaker[Session], delivered: list[str], shown: str
) -> None:
    with sessions.begin() as session:
        open_alert(session, "batch_stuck", "batch 7", "CRITICAL", "It is stuck.")
        alert_id = session.scalars(text("select id from ops.alerts")).one()
        now = datetime.now(UTC)
        rows = [line.split() for line in delivered]
        record_deliveries(
            session, [Delivery(alert_id, Channel(channel), name, "CRITICAL", 1, now) for channel, name in rows]
        )
    assert shown in run_alerts()[1]
    (listed,) = json.loads(run_alerts("--json")[1])
    assert {f"{row['channel']} {row['notification']}" for row in listed["notifications"]} == set(delivered)


def test_open_alerts_are_listed_worst_first_and_resolved_ones_with_all(alert_ids: list[int]) -> None:
    high, critical, resolved = alert_ids
    listed = json.loads(run_alerts("--json")[1])
    assert [alert["id"] for alert in listed] == [critical, high]
    assert listed[0]["detail"] == "Batch 7 is stuck."
    assert [alert["id"] for alert in json.loads(run_alerts("--all", "--json")[1])] == [critical, high, resolved]
    output = run_alerts("--all")[1]
    assert output.index("batch_stuck") < output.index("reports_waiting") < output.index("bank_silent")


def test_acknowledgement_names_the_person_and_when_it_ends(alert_ids: list[int], maria: str) -> None:
    high = str(alert_ids[0])
    code, output = run_alerts("ack", high, "--as", maria)
    (acknowledged,) = [alert for alert in json.loads(run_alerts("--json")[1]) if alert["acknowledged_at"]]
    assert (acknowledged["id"], acknowledged["acknowledged_by"]) == (alert_ids[0], maria)
    until = datetime.fromisoformat(acknowledged["acknowledged_until"])
    assert until - datetime.fromisoformat(acknowledged["acknowledged_at"]) == timedelta(hours=4)
    assert (code, output) == (
        0,
        f"Alert {high} (reports_waiting, report requests) is acknowledged by {maria} until {until:%Y-%m-%d %H:%M} UTC.",
    )


@pytest.mark.parametrize(("text", "duration"), [("30m", timedelta(minutes=30)), ("7d", timedelta(days=7))])
def test_later_acknowledgement_replaces_the_earlier_one(
    alert_ids: list[int], maria: str, text: str, duration: timedelta
) -> None:
    run_alerts("ack", str(alert_ids[0]))
    run_alerts("ack", str(alert_ids[0]), "--for", text, "--as", maria)
    (acknowledged,) = [alert for alert in json.loads(run_alerts("--json")[1]) if alert["acknowledged_at"]]
    lasts = datetime.fromisoformat(acknowledged["acknowledged_until"]) - datetime.fromisoformat(
        acknowledged["acknowledged_at"]
    )
    assert (acknowledged["acknowledged_by"], lasts) == (maria, duration)


@pytest.mark.parametrize("text", ["", "0m", "8d", "4", "4hours", "-1h", "1.5h"])
def test_invalid_duration_is_refused_and_changes_nothing(alert_ids: list[int], text: str) -> None:
    code, output = run_alerts("ack", str(alert_ids[0]), "--for", text)
    assert code == 2
    assert "is not a time like 30m" in output
    assert all(alert["acknowledged_at"] is None for alert in json.loads(run_alerts("--json")[1]))


@pytest.mark.parametrize("command", ["ack", "resolve"])
def test_unknown_and_resolved_alerts_are_one_line_errors(alert_ids: list[int], command: str) -> None:
    assert run_alerts(command, "999999") == (
        1,
        "No alert has the number 999999. `seedtrust-ops alerts` lists the open ones.",
    )
    code, output = run_alerts(command, str(alert_ids[2]))
    assert code == 1
    assert output.startswith(f"Alert {alert_ids[2]} (bank_silent, Huntington) was already resolved at ")


def test_manual_resolution_records_the_person(alert_ids: list[int], maria: str) -> None:
    critical = str(alert_ids[1])
    assert run_alerts("resolve", critical, "--as", maria) == (
        0,
        f"Alert {critical} (batch_stuck, batch 7) is resolved.",
    )
    resolved = [alert for alert in json.loads(run_alerts("--all", "--json")[1]) if alert["id"] == alert_ids[1]]
    assert [alert["detail"] for alert in resolved] == [f"Batch 7 is stuck. Resolved by {maria}."]
