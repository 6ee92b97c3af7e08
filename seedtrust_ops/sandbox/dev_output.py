"""What `seedtrust-ops dev` prints while it runs: a line for each run, for each alert, and for what a person must know.

Everything else that its programs print is in a file, or printed too with `--verbose`. What the programs do is in `dev`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from seedtrust_ops.database.engine import create_application_engine
from seedtrust_ops.formatting import format_duration, single_line, strip_control_chars
from seedtrust_ops.supervisor.worker_main import line_printer
from seedtrust_ops.tables import Alert, JobRun

RUN_HOST = "run-host"
_ERROR_LINE = re.compile(r" - (ERROR|CRITICAL) - |^Traceback ")
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
"""Dagster colors the level of a line, also in a pipe."""
POLL_SECONDS = 1.0
OVERLAP = timedelta(minutes=10)
"""JobRun is written some seconds after a run has ended. What is written later than this is not printed."""
MAX_REASON_CHARS = 200
OUTCOMES = {"COMPLETED": "completed", "ERROR": "failed", "REVOKED": "was canceled", "EXPIRED": "expired in the queue"}


class DevOutput:
    """Prints lines for people, and writes everything to a file; use it in a `with` block."""

    def __init__(self, log: Path, *, verbose: bool) -> None:
        """Replace the file `log`. With `verbose`, every line is printed."""
        self._print = line_printer()
        self._verbose = verbose
        self._lock = Lock()
        self._log = log.open("w")
        if not verbose:
            self._print("dev", f"Everything that the programs print is in {log}, and here with `--verbose`.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        with self._lock:
            self._log.close()

    def print_line(self, name: str, line: str) -> None:
        """Print a line for people."""
        self._write(name, line)
        self._print(name, line)

    def print_output(self, name: str, line: str) -> None:
        """Take a line of a program's output; print it only if it is an error's. A failed run has a line of its own."""
        line = _COLOR.sub("", line)
        self._write(name, line)
        if self._verbose or (name != RUN_HOST and _ERROR_LINE.search(line)):
            self._print(name, line)

    def _write(self, name: str, line: str) -> None:
        with self._lock:
            # A program can print until it has ended, which is after this.
            if not self._log.closed:
                self._log.write(f"{name:<12}| {strip_control_chars(line)}\n")
                self._log.flush()


@contextmanager
def print_activity(database: URL, output: DevOutput, address: str) -> Iterator[None]:
    """Print a line for each run that ends and each alert that opens or is resolved, until the block ends.

    Args:
        database: the application's database.
        output: where to print.
        address: the URL of the Dagster UI.
    """
    ending = Event()
    engine = create_application_engine(database)
    activity = Activity(sessionmaker(engine), address)

    def loop() -> None:
        while not ending.wait(POLL_SECONDS):
            try:
                lines = activity.read_new()
            except DBAPIError:
                # The database is being restarted, which `dev` prints. The next poll reads the same again.
                continue
            for name, line in lines:
                output.print_line(name, line)

    thread = Thread(target=loop, name="activity")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        engine.dispose()


class Activity:
    """Reads what has happened since it was created, each thing once."""

    def __init__(self, sessions: sessionmaker[Session], address: str) -> None:
        self._sessions = sessions
        self._address = address
        with sessions() as session:
            self._since: datetime = session.scalars(select(func.now())).one()
        self._shown: set[tuple[str, int]] = set()

    def read_new(self) -> list[tuple[str, str]]:
        """Return a name and a line for each new thing, in the order in which they happened."""
        with self._sessions() as session:
            now = session.scalars(select(func.now())).one()
            since = max(self._since, now - OVERLAP)
            happened = [*self._runs(session, since), *self._alerts(session, since)]
        new = [one for one in happened if one[1] not in self._shown]
        self._shown.update(key for _, key, _, _ in new)
        return [(name, line) for _, _, name, line in sorted(new)]

    def _runs(self, session: Session, since: datetime) -> Iterator[tuple[datetime, tuple[str, int], str, str]]:
        columns = (JobRun.id, JobRun.run_id, JobRun.task_name, JobRun.status, JobRun.error, JobRun.started_at)
        for run in session.execute(select(*columns, JobRun.finished_at).where(JobRun.finished_at >= since)):
            seconds = None if run.started_at is None else (run.finished_at - run.started_at).total_seconds()
            outcome = OUTCOMES.get(run.status, run.status)
            took = "" if seconds is None else f" in {format_duration(seconds)}"
            reason = f": {single_line(run.error, MAX_REASON_CHARS)}" if run.error else ""
            line = f"{run.task_name} {outcome}{took}{reason} {self._address}/runs/{run.run_id}"
            yield run.finished_at, ("run", run.id), "run", line

    def _alerts(self, session: Session, since: datetime) -> Iterator[tuple[datetime, tuple[str, int], str, str]]:
        for alert in session.scalars(select(Alert).where(Alert.opened_at >= since)):
            line = f"{alert.severity} {alert.rule}, {alert.subject}: {single_line(alert.detail, MAX_REASON_CHARS)}"
            yield alert.opened_at, ("opened", alert.id), "alert", line
        for alert in session.scalars(select(Alert).where(Alert.resolved_at >= since)):
            assert alert.resolved_at is not None, "the condition"
            yield alert.resolved_at, ("resolved", alert.id), "alert", f"Resolved: {alert.rule}, {alert.subject}."
