"""`seedtrust-ops alerts`: lists what is open, quiets what somebody sees to, and closes what is settled."""

import json

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from seedtrust_ops.cli.main import app
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert

pytestmark = pytest.mark.usefixtures("bank_environment")


def alerts(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["alerts", *arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def numbers(sessions: sessionmaker[Session]) -> list[int]:
    """A HIGH alert, a CRITICAL one, and one that is over."""
    with sessions.begin() as session:
        open_alert(session, "reports_waiting", "report requests", "HIGH", "3 wait.")
        open_alert(session, "batch_stuck", "batch 7", "CRITICAL", "Batch 7 is stuck.")
        open_alert(session, "bank_silent", "Huntington", "CRITICAL", "It says nothing.")
        resolve_alert(session, "bank_silent", "Huntington")
        return list(session.scalars(text("select id from ops.alerts order by id")))


def test_nothing_open_is_said_in_words(sessions: sessionmaker[Session]) -> None:
    assert alerts() == (0, "No alert is open.")


def test_open_alerts_are_listed_worst_first_and_those_that_are_over_on_request(numbers: list[int]) -> None:
    high, critical, over = numbers
    listed = json.loads(alerts("--json")[1])
    assert [one["id"] for one in listed] == [critical, high]
    assert listed[0]["detail"] == "Batch 7 is stuck."
    assert [one["id"] for one in json.loads(alerts("--all", "--json")[1])] == [critical, high, over]
    said = alerts("--all")[1]
    assert said.index("batch_stuck") < said.index("reports_waiting") < said.index("bank_silent")


def test_acknowledging_names_who_sees_to_it_and_the_first_stays(numbers: list[int]) -> None:
    high = str(numbers[0])
    assert alerts("ack", high, "--by", "Maria") == (
        0,
        f"Maria sees to alert {high}: reports_waiting, report requests.",
    )
    assert alerts("ack", high, "--by", "Tom")[1].startswith("Maria sees to alert")
    (acknowledged,) = [one for one in json.loads(alerts("--json")[1]) if one["acknowledged_at"]]
    assert (acknowledged["id"], acknowledged["acknowledged_by"]) == (numbers[0], "Maria")


@pytest.mark.parametrize("command", ["ack", "resolve"])
def test_unknown_and_resolved_alerts_are_told_in_a_sentence(numbers: list[int], command: str) -> None:
    assert alerts(command, "999999") == (
        1,
        "There is no alert with the number 999999. `seedtrust-ops alerts` lists the open ones.",
    )
    code, said = alerts(command, str(numbers[2]))
    assert code == 1
    assert said.startswith(f"Alert {numbers[2]} (bank_silent, Huntington) is over since ")


def test_what_is_settled_is_closed_under_the_name_of_who_did_it(numbers: list[int]) -> None:
    critical = str(numbers[1])
    assert alerts("resolve", critical, "--by", "Maria") == (0, f"Alert {critical} is closed: batch_stuck, batch 7.")
    over = [one for one in json.loads(alerts("--all", "--json")[1]) if one["id"] == numbers[1]]
    assert [one["detail"] for one in over] == ["Batch 7 is stuck. Closed by Maria."]
