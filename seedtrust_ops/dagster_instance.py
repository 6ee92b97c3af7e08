"""The classes that `dagster.yaml` names: the run queue, and where Dagster stores its runs and its local files.

Each is Dagster's own class with this project's settings: bare `postgresql://` URLs work, the embedded server is used if
no database is configured, times are stored in UTC, and relative folders are under DAGSTER_HOME. Which runs are accepted
is decided in `run_admission`.
See docs/decisions/embedded-postgres.md.
"""

import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Self

from dagster import DagsterInstance, DagsterRun, Field, QueuedRunCoordinator, RunRecord, SubmitRunContext
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from seedtrust_ops.config import get_settings
from seedtrust_ops.dagster_internals import (
    DATABASE_RETRIES,
    FEWER_QUERIES,
    IO_TYPE_EXTENSION,
    POOLED_CONNECTIONS,
    RUN_OUTPUT,
    CapturedLogContext,
    ComputeIOType,
    LocalArtifactStorage,
    LocalComputeLogManager,
    ensure_file,
    is_available,
    redirect_to_file,
    retry_pg_connection_fn,
    touch_file,
)
from seedtrust_ops.database.engine import dagster_url
from seedtrust_ops.run_admission import OWN_DEFINITIONS, RunRefused, check_tags, with_own_code
from seedtrust_ops.tag_names import REQUEST_TAG

run_was_queued = Event()
"""Set when this process has queued a run. It wakes up the daemon, whose sensors and schedules queue the urgent runs."""


class RunQueue(QueuedRunCoordinator):
    """Dagster's run queue, which gives each run its policy's tags, refuses others, and sets `run_was_queued`."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Queue the run. However it was launched, Dagster calls this.

        Raises:
            RunRefused: if a tag is not for its launcher to choose. Dagster shows the message and fails the run.
        """
        run = context.dagster_run
        parent = self._instance.get_run_by_id(run.parent_run_id) if run.parent_run_id is not None else None
        # Only the web server's requests have a source.
        from_web = getattr(context.workspace, "source", None) is not None
        try:
            corrected = check_tags(run, parent=parent, from_web=from_web)
        except RunRefused as refusal:
            # The refused run stays in Dagster's list, where schedules, sensors and launchers look for such tags. Nor
            # is it the launch that a client's request asked for.
            tags = {*refusal.tags, REQUEST_TAG} & run.tags.keys()
            self._instance.add_run_tags(run.run_id, dict.fromkeys(tags, ""))
            raise
        if corrected:
            self._instance.add_run_tags(run.run_id, corrected)
        try:
            return super().submit_run(context)
        finally:
            run_was_queued.set()


class RunStorage(PostgresRunStorage):
    """Runs. Each is read with the code that this process may load, whatever the database says (`with_own_code`)."""

    def __init__(self, postgres_url: str, *, definitions: str, should_autocreate_tables: bool) -> None:
        super().__init__(postgres_url, should_autocreate_tables)
        self._definitions = definitions

    def get_runs(self, *arguments: Any, **options: Any) -> list[DagsterRun]:
        return [with_own_code(run, self._definitions) for run in super().get_runs(*arguments, **options)]

    def get_run_records(self, *arguments: Any, **options: Any) -> list[RunRecord]:
        return [
            record._replace(dagster_run=with_own_code(record.dagster_run, self._definitions))
            for record in super().get_run_records(*arguments, **options)
        ]


class ScheduleStorage(PostgresScheduleStorage):
    """Schedules, sensors and their ticks. It checks once whether its tables exist, not several times a tick.

    Those catalog queries were a quarter of everything an idle daemon did.
    """

    _tables_exist = False

    def has_secondary_index_table(self) -> bool:
        return self.has_instigators_table()

    def _has_instigators_table(self, conn: Connection) -> bool:
        # Every Dagster version that used this class has created both tables, and nothing drops them.
        self._tables_exist = self._tables_exist or super()._has_instigators_table(conn)
        return self._tables_exist


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events, schedules and ticks, in the database of DAGSTER_POSTGRES_URL; creates tables once a process."""

    _urls_with_tables: ClassVar[set[str]] = set()

    def __init__(self, postgres_url: str, *, definitions: str = OWN_DEFINITIONS, inst_data: Any = None) -> None:
        # Dagster creates an instance for each sensor evaluation, and a third of that work was checking for the tables.
        super().__init__(postgres_url, postgres_url not in self._urls_with_tables, inst_data)
        self._urls_with_tables.add(postgres_url)
        self._runs = RunStorage(postgres_url, definitions=definitions, should_autocreate_tables=False)
        if is_available(FEWER_QUERIES):
            self._schedule_storage = ScheduleStorage(postgres_url, should_autocreate_tables=False)

    @property
    def run_storage(self) -> RunStorage:
        return self._runs

    @classmethod
    def config_type(cls) -> Any:
        # Another code location in the same database, as in tests, names its own.
        return {"definitions": Field(str, default_value=OWN_DEFINITIONS)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        url = retry_pg_connection_fn(_storage_url) if is_available(DATABASE_RETRIES) else _storage_url()
        return cls(
            url.render_as_string(hide_password=False), definitions=config_value["definitions"], inst_data=inst_data
        )


class LocalFiles(LocalArtifactStorage):
    """The files that Dagster keeps on this machine, in a folder under DAGSTER_HOME."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "LocalFiles":
        return cls(base_dir=resolve_in_dagster_home(config_value["base_dir"]), inst_data=inst_data)


class LocalRunOutput(LocalComputeLogManager):
    """The captured output of runs, in a folder under DAGSTER_HOME."""

    echoes_output = True
    """Whether the output is printed as well; Dagster starts four processes a step for that."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "LocalRunOutput":
        return cls(base_dir=resolve_in_dagster_home(config_value["base_dir"]), inst_data=inst_data)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Generator[CapturedLogContext]:
        if self.echoes_output or not is_available(RUN_OUTPUT):
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


def pool_connections(instance: DagsterInstance, *, max_connections: int) -> None:
    """Pool the instance's connections: runs, events and schedules each keep one open and use at most `max_connections`.

    Without a pool Dagster opens a connection for every statement: about forty a run, and several a second in an idle
    daemon. A pooled connection is tested before each use, so a database restart has the same effect as without a pool.
    The instance must belong to this process alone, and the process must not fork.
    """
    if not is_available(POOLED_CONNECTIONS):
        return
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        if isinstance(storage, PostgresRunStorage | PostgresEventLogStorage | PostgresScheduleStorage):
            storage._engine = create_engine(
                storage.postgres_url,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=max_connections - 1,
                pool_pre_ping=True,
            )


def _storage_url() -> URL:
    return add_utc_option(dagster_url())


@cache
def add_utc_option(url: URL) -> URL:
    """Return `url` with an option for UTC sessions if the server's default is another zone; queries it once a process.

    Dagster writes the times of runs into columns without a time zone, in the session's zone, and reads them as UTC.
    The option is added only if it is needed, because some connection poolers reject it.
    """
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        zone = str(connection.scalar(text("show timezone")))
    if zone.upper() in ("UTC", "ETC/UTC", "GMT"):
        return url
    options = " ".join([*url.normalized_query.get("options", ()), "-c timezone=UTC"])
    return url.update_query_dict({"options": options})


def resolve_in_dagster_home(folder: str) -> str:
    """Return the path of a folder that `dagster.yaml` names: under DAGSTER_HOME, or if unset the current directory."""
    return str((get_settings().location.dagster_home or Path.cwd()).expanduser().resolve() / folder)
