"""Crashes of a process open one alert, which counts them, and a stable process resolves it."""

import threading

import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.supervisor import supervisor
from seedtrust_ops.supervisor.crash_alerts import RULE, record_crash_alerts
from seedtrust_ops.tables import Alert
from seedtrust_ops_tests.supervisor.test_supervisor import OutputRecorder, program
from seedtrust_ops_tests.support.waiters import wait_until


def read_alerts(sessions: sessionmaker[Session]) -> list[tuple[str, str, int, bool]]:
    with sessions() as session:
        found = session.scalars(select(Alert).where(Alert.rule == RULE).order_by(Alert.id))
        return [(alert.subject, alert.severity, alert.occurrences, alert.resolved_at is not None) for alert in found]


@pytest.mark.usefixtures("child_processes")
def test_repeated_crash_opens_one_alert_until_the_process_is_stable(
    database_url: URL, sessions: sessionmaker[Session], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MIN_RESTART_DELAY_SECONDS", 0.05)
    # No run counts as stable before the alert was seen, however long it takes.
    monkeypatch.setattr(supervisor, "STABLE_SECONDS", 3_600.0)
    output = OutputRecorder()
    stop = threading.Event()
    twice = f"test -e {tmp_path}/second && exec sleep 1000; test -e {tmp_path}/first && touch {tmp_path}/second; "
    crashing = program(f"{twice} touch {tmp_path}/first; exit 3")
    with record_crash_alerts(database_url, output) as crash_alerts:
        running = supervisor.Supervisor([crashing], output, observer=crash_alerts)
        thread = threading.Thread(target=running.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: sum("Exited with code 3" in line for line in output.lines) == 2, what="two crashes")
            wait_until(lambda: read_alerts(sessions) == [("script", "HIGH", 2, False)], what="the alert")
            monkeypatch.setattr(supervisor, "STABLE_SECONDS", 0.1)
            wait_until(lambda: read_alerts(sessions) == [("script", "HIGH", 2, True)], what="its resolution")
        finally:
            stop.set()
            thread.join(120)


def test_unreachable_database_delays_neither_supervisor_nor_shutdown(database_url: URL) -> None:
    output = OutputRecorder()
    unreachable = database_url.set(query={"host": "127.0.0.1", "port": "1"})
    with record_crash_alerts(unreachable, output) as crash_alerts:
        crash_alerts.on_crash("daemon", 137, 12.0)
        crash_alerts.on_recovery("daemon")
    assert all("could not be written to ops.alerts" in line for line in output.lines)
