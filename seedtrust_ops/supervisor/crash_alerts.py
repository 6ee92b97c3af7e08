"""Tells people of processes that died: an alert that is open until the process has lived well again.

The supervisor must never wait for a database, so this writes from a thread of its own; what can't be written
because the database is away is kept until it is back.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from seedtrust_ops.supervisor.program import Say

RULE = "process_died"
KEPT_SECONDS = 3600.0
"""How long a telling is kept while the database is away; by then the watchdog has told of that."""
LONGEST_PAUSE_SECONDS = 15.0


class CrashAlerts:
    """What befalls the supervisor's programs, written to `ops.alerts`."""

    def __init__(self, sessions: "sessionmaker[Session]", say: Say) -> None:
        """Take where to write, and whom to tell where that is impossible."""
        self._sessions = sessions
        self._say = say
        self._ending = Event()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="deaths")

    def died(self, name: str, code: int, lived_seconds: float) -> None:
        """Open the alert that the program `name` ended by itself with exit code `code`."""
        detail = (
            f"Process {name} ended with code {code} after {lived_seconds:.0f} s, and the worker starts it again. What "
            "was under way is taken up by itself. If this comes again, look at what the worker printed before it."
        )

        def tell(session: Session) -> None:
            open_alert(session, RULE, name, Severity.HIGH, detail)

        self._threads.submit(self._write, name, tell)

    def lived_well(self, name: str) -> None:
        """Resolve the alert about the program `name`."""

        def tell(session: Session) -> None:
            resolve_alert(session, RULE, name)

        self._threads.submit(self._write, name, tell)

    def end(self) -> None:
        """Give up what is not written yet."""
        self._ending.set()
        self._threads.shutdown(cancel_futures=True)

    def _write(self, name: str, tell: Callable[[Session], None]) -> None:
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(DBAPIError),
                wait=wait_exponential(max=LONGEST_PAUSE_SECONDS),
                stop=stop_after_delay(KEPT_SECONDS) | stop_when_event_set(self._ending),
                sleep=sleep_using_event(self._ending),
                reraise=True,
            ):
                with attempt, self._sessions.begin() as session:
                    tell(session)
        except DBAPIError as error:
            self._say(name, f"what befell this process could not be written to ops.alerts: {error.orig}")


@contextmanager
def tell_of_deaths(url: URL, say: Say) -> Iterator[CrashAlerts]:
    """Yield what writes to the application's database at `url` for as long as the block lasts."""
    engine = create_application_engine(url)
    deaths = CrashAlerts(sessionmaker(engine), say)
    try:
        yield deaths
    finally:
        deaths.end()
        engine.dispose()
