"""Opens an alert when a supervised process crashes, and resolves it when the process is stable again.

The supervisor must never wait for a database, so a separate thread writes the alerts, and keeps what it cannot write
until the database is reachable again.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_exponential,
)

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.domain.alerts.store import open_alert, resolve_alert
from seedtrust_ops.severity import Severity
from seedtrust_ops.supervisor.program import PrintLine

RULE = "process_died"
MAX_RETRY_SECONDS = 3600.0
"""How long a write is retried while the database is down. By then the watchdog has alerted about the database."""
MAX_RETRY_DELAY_SECONDS = 15.0


class CrashAlerts:
    """Writes the crashes and recoveries of the supervisor's programs to `ops.alerts`."""

    def __init__(self, sessions: "sessionmaker[Session]", print_line: PrintLine) -> None:
        """Take the sessions to write with, and what prints a write that failed for good."""
        self._sessions = sessions
        self._print_line = print_line
        self._closing = Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="crash-alerts")

    def on_crash(self, name: str, code: int, uptime_seconds: float) -> None:
        """Open or renew the alert that the program `name` exited on its own with exit code `code`."""
        # The time makes each crash a new occurrence.
        detail = (
            f"Process {name} exited with code {code} after {uptime_seconds:.0f} s, at "
            f"{datetime.now(UTC).isoformat(sep=' ', timespec='milliseconds')}. The worker restarts it, and "
            "interrupted work resumes automatically. If it crashes again, check the worker's output just before the "
            "crash."
        )

        def write(session: Session) -> None:
            open_alert(session, RULE, name, Severity.HIGH, detail)

        self._threads.submit(self._write, name, write)

    def on_recovery(self, name: str) -> None:
        """Resolve the alert about the program `name`."""

        def write(session: Session) -> None:
            resolve_alert(session, RULE, name)

        self._threads.submit(self._write, name, write)

    def close(self) -> None:
        """Stop, and discard what is not written yet."""
        self._closing.set()
        self._threads.shutdown(cancel_futures=True)

    def _write(self, name: str, write: Callable[[Session], None]) -> None:
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(DBAPIError),
                wait=wait_exponential(max=MAX_RETRY_DELAY_SECONDS),
                stop=stop_after_delay(MAX_RETRY_SECONDS) | stop_when_event_set(self._closing),
                sleep=sleep_using_event(self._closing),
                reraise=True,
            ):
                with attempt, self._sessions.begin() as session:
                    write(session)
        except DBAPIError as error:
            self._print_line(
                name, f"Its crash or recovery could not be written to ops.alerts and is not retried: {error.orig}"
            )


@contextmanager
def record_crash_alerts(url: URL, print_line: PrintLine) -> Iterator[CrashAlerts]:
    """Yield a `CrashAlerts` that writes to the application's database at `url` until the block ends."""
    engine = create_application_engine(url)
    crash_alerts = CrashAlerts(sessionmaker(engine), print_line)
    try:
        yield crash_alerts
    finally:
        crash_alerts.close()
        engine.dispose()
