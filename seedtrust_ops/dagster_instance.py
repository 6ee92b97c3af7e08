"""What `dagster.yaml` names: where Dagster keeps its runs and its local files, by this project's own rules.

Everything here is Dagster's own class told where to go: bare `postgresql://` URLs are taken, the embedded
server serves where none is configured, times are kept in UTC, and relative folders lie under DAGSTER_HOME
whatever folder the process was started in.
"""

import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Self

from dagster import DagsterInstance, DagsterRun
from dagster._core.execution.compute_logs import redirect_to_file
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeIOType
from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION, LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils import ensure_file, touch_file
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import retry_pg_connection_fn
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from seedtrust_ops.config import get_settings
from seedtrust_ops.database.engine import dagster_url

run_was_queued = Event()
"""Set when this process has queued a run, for the daemon: its sensors and schedules queue what must start soonest."""


class RunQueue(QueuedRunCoordinator):
    """Dagster's queue of runs, which says so when a run was put into it."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        try:
            return super().submit_run(context)
        finally:
            run_was_queued.set()


class ScheduleStorage(PostgresScheduleStorage):
    """Schedules, sensors and their ticks; asks once whether its tables are there, not several times a tick.

    Those questions to the catalogue were a quarter of all that an idle daemon did.
    """

    _tables_are_there = False

    def has_secondary_index_table(self) -> bool:
        return self.has_instigators_table()

    def _has_instigators_table(self, conn: Connection) -> bool:
        # Both tables are as old as any Dagster that kept its storage in PostgreSQL by this class, and none is dropped.
        self._tables_are_there = self._tables_are_there or super()._has_instigators_table(conn)
        return self._tables_are_there


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules and ticks, in the database of `DAGSTER_POSTGRES_URL`; made once a process if need be."""

    _with_tables: ClassVar[set[str]] = set()

    def __init__(self, postgres_url: str, *, inst_data: ConfigurableClassData | None = None) -> None:
        # Dagster makes an instance for each look of a sensor, a third of whose work was to see if the tables are there.
        super().__init__(postgres_url, postgres_url not in self._with_tables, inst_data)
        self._with_tables.add(postgres_url)
        self._schedule_storage = ScheduleStorage(postgres_url, should_autocreate_tables=False)

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        url = retry_pg_connection_fn(lambda: in_utc(dagster_url()))
        return cls(postgres_url=url.render_as_string(hide_password=False), inst_data=inst_data)


class LocalFiles(LocalArtifactStorage):
    """Files that Dagster keeps on this machine, in a folder under DAGSTER_HOME."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "LocalFiles":
        return cls(base_dir=under_dagster_home(config_value["base_dir"]), inst_data=inst_data)


class LocalRunOutput(LocalComputeLogManager):
    """What runs print, in a folder under DAGSTER_HOME."""

    mirrored = True
    """Whether it is printed as well, for which Dagster starts four processes a step."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "LocalRunOutput":
        return cls(base_dir=under_dagster_home(config_value["base_dir"]), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        if self.mirrored:
            with super().capture_logs(log_key) as context:
                yield context
            return
        with ExitStack() as redirections:
            for stream, kind in ((sys.stdout, ComputeIOType.STDOUT), (sys.stderr, ComputeIOType.STDERR)):
                path = self.get_captured_local_path(log_key, IO_TYPE_EXTENSION[kind])
                ensure_file(path)
                redirections.enter_context(redirect_to_file(stream, path))
            yield CapturedLogContext(log_key)
        touch_file(self.complete_artifact_path(log_key))  # type: ignore[no-untyped-call]  # Dagster's has no types


def keep_connections(instance: DagsterInstance, *, most: int) -> None:
    """Let an instance keep its connections: one open for runs, events and schedules each, and up to `most` at work.

    Dagster connects anew for every statement: some forty times a run, and several times a second in an idle daemon. A
    kept connection is tried before each use, so that a database that was away is no harder to bear than it was.
    The instance must be this process's own, and the process must not fork.
    """
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        if isinstance(storage, PostgresRunStorage | PostgresEventLogStorage | PostgresScheduleStorage):
            storage._engine = create_engine(
                storage.postgres_url,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=most - 1,
                pool_pre_ping=True,
            )


@cache
def in_utc(url: URL) -> URL:
    """Return `url` with sessions in UTC, where the server's own are not; the server is asked once a process.

    Dagster keeps the times of runs in columns without a zone, in whatever zone the session has, and reads
    them as UTC. The option is added only where it is needed, because some connection poolers refuse it.
    """
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        zone = str(connection.scalar(text("show timezone")))
    if zone.upper() in ("UTC", "ETC/UTC", "GMT"):
        return url
    options = " ".join([*url.normalized_query.get("options", ()), "-c timezone=UTC"])
    return url.update_query_dict({"options": options})


def under_dagster_home(folder: str) -> str:
    """Return where a folder lies that `dagster.yaml` names; relative to DAGSTER_HOME, else to the current directory."""
    return str((get_settings().location.dagster_home or Path.cwd()).expanduser().resolve() / folder)
