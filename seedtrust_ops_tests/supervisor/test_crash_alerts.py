"""People are told of a process that died, once however often it dies, and when it lives well again."""

import threading

import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.supervisor import supervisor
from seedtrust_ops.supervisor.crash_alerts import RULE, tell_of_deaths
from seedtrust_ops.tables import Alert
from seedtrust_ops_tests.supervisor.test_supervisor import Said, program
from seedtrust_ops_tests.support.waiters import wait_until


def alerts(sessions: sessionmaker[Session]) -> list[tuple[str, str, bool]]:
    with sessions() as session:
        found = session.scalars(select(Alert).where(Alert.rule == RULE).order_by(Alert.id))
        return [(one.subject, one.severity, one.resolved_at is not None) for one in found]


def test_a_process_that_dies_twice_opens_one_alert_that_is_resolved_when_it_has_lived_well(
    database_url: URL, sessions: sessionmaker[Session], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.05)
    # None of its lives is a good one until the alert was seen, however long any of them takes.
    monkeypatch.setattr(supervisor, "LIVED_WELL_SECONDS", 3_600.0)
    said = Said()
    stop = threading.Event()
    twice = f"test -e {tmp_path}/second && exec sleep 1000; test -e {tmp_path}/first && touch {tmp_path}/second; "
    dying = program(f"{twice} touch {tmp_path}/first; exit 3")
    with tell_of_deaths(database_url, said) as deaths:
        running = supervisor.Supervisor([dying], said, observer=deaths)
        thread = threading.Thread(target=running.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: sum("ended with code 3" in line for line in said.lines) == 2, what="two deaths")
            wait_until(lambda: alerts(sessions) == [("script", "HIGH", False)], what="the alert")
            monkeypatch.setattr(supervisor, "LIVED_WELL_SECONDS", 0.1)
            wait_until(lambda: alerts(sessions) == [("script", "HIGH", True)], what="its resolution")
        finally:
            stop.set()
            thread.join(120)


def test_a_database_that_is_away_delays_neither_the_supervisor_nor_its_end(database_url: URL) -> None:
    said = Said()
    nowhere = database_url.set(query={"host": "127.0.0.1", "port": "1"})
    with tell_of_deaths(nowhere, said) as deaths:
        deaths.died("daemon", 137, 12.0)
        deaths.lived_well("daemon")
    assert all("could not be written to ops.alerts" in line for line in said.lines)
