"""The one module that imports private names of Dagster; the others import them from here.

`PRIVATE_NAMES` says what each name is for. A name that another version of Dagster lacks is replaced by a class that
raises when it is used, so that everything still loads: a convenience checks its names before it starts and falls back
to Dagster's own way, and a run that sends payments refuses to start without the required ones.
See docs/decisions/dagster-internals.md.
"""

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from seedtrust_ops.errors import SeedTrustError

if TYPE_CHECKING:
    from dagster._cli.api import _execute_run_command_body as _execute_run_command_body
    from dagster._cli.utils import _inject_local_env_file as _inject_local_env_file
    from dagster._cli.utils import get_instance_for_cli as get_instance_for_cli
    from dagster._core.code_pointer import ModuleCodePointer as ModuleCodePointer
    from dagster._core.code_pointer import load_python_module as load_python_module
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJobDefinition,
    )
    from dagster._core.events import EngineEventData as EngineEventData
    from dagster._core.events import JobFailureData as JobFailureData
    from dagster._core.events import RunFailureReason as RunFailureReason
    from dagster._core.execution.compute_logs import redirect_to_file as redirect_to_file
    from dagster._core.execution.plan.objects import ErrorSource as ErrorSource
    from dagster._core.execution.plan.objects import StepFailureData as StepFailureData
    from dagster._core.executor.in_process import InProcessExecutor as InProcessExecutor
    from dagster._core.launcher import CheckRunHealthResult as CheckRunHealthResult
    from dagster._core.launcher import LaunchRunContext as LaunchRunContext
    from dagster._core.launcher import ResumeRunContext as ResumeRunContext
    from dagster._core.launcher import WorkerStatus as WorkerStatus
    from dagster._core.storage.compute_log_manager import CapturedLogContext as CapturedLogContext
    from dagster._core.storage.compute_log_manager import ComputeIOType as ComputeIOType
    from dagster._core.storage.event_log import SqlEventLogStorageTable as SqlEventLogStorageTable
    from dagster._core.storage.local_compute_log_manager import IO_TYPE_EXTENSION as IO_TYPE_EXTENSION
    from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager as LocalComputeLogManager
    from dagster._core.storage.root import LocalArtifactStorage as LocalArtifactStorage
    from dagster._core.workspace.context import WorkspaceProcessContext as WorkspaceProcessContext
    from dagster._core.workspace.context import WorkspaceRequestContext as WorkspaceRequestContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget as WorkspaceFileTarget
    from dagster._daemon.controller import create_daemons_from_instance as create_daemons_from_instance
    from dagster._daemon.controller import daemon_controller_from_instance as daemon_controller_from_instance
    from dagster._daemon.daemon import DagsterDaemon as DagsterDaemon
    from dagster._daemon.daemon import SensorDaemon as SensorDaemon
    from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon as QueuedRunCoordinatorDaemon
    from dagster._grpc.types import ExecuteRunArgs as ExecuteRunArgs
    from dagster._utils import ensure_file as ensure_file
    from dagster._utils import touch_file as touch_file
    from dagster._utils.interrupts import capture_interrupts as capture_interrupts
    from dagster._utils.interrupts import setup_interrupt_handlers as setup_interrupt_handlers
    from dagster_postgres.utils import DagsterPostgresException as DagsterPostgresException
    from dagster_postgres.utils import retry_pg_connection_fn as retry_pg_connection_fn
    from dagster_shared.error import SerializableErrorInfo as SerializableErrorInfo
    from dagster_shared.serdes.errors import DeserializationError as DeserializationError
    from dagster_webserver.app import (
        create_app_from_workspace_process_context as create_app_from_workspace_process_context,
    )

_logger = logging.getLogger(__name__)


class DagsterIncompatible(SeedTrustError):
    """The installed version of Dagster lacks a name that this feature needs, most likely after an upgrade."""


@dataclass(frozen=True)
class Feature:
    """What private names are used for."""

    name: str
    without: str
    """What goes wrong or is worse without it."""
    instead: str
    """What happens if one of its names is missing."""
    required: bool = False
    """Whether payment runs refuse to start without it; the other features are conveniences."""


PAYMENTS_REFUSED = "Payment runs refuse to start, and other jobs run with Dagster's own executor."
CANCELLATION = Feature(
    "stopping a canceled run",
    "a run that a person cancels would be retried and go on sending",
    PAYMENTS_REFUSED,
    required=True,
)
EXPIRY = Feature(
    "expiring runs in the queue",
    "a run that waited in the queue too long would start anyway and send",
    PAYMENTS_REFUSED,
    required=True,
)
RUN_IDENTITY = Feature(
    "run identity and fencing",
    "nobody could tell which run holds a batch, nor keep two workers of one batch apart",
    PAYMENTS_REFUSED,
    required=True,
)
WARM_LAUNCHER = Feature(
    "the warm run launcher",
    "each run takes seconds to start, because it imports Dagster and all jobs",
    "Dagster's own launcher (DefaultRunLauncher) starts the runs.",
)
EARLY_IMPORTS = Feature(
    "the zygote's early imports", "each run imports these modules itself", "Runs start a little later."
)
FAST_DAEMON = Feature(
    "the fast daemon loops",
    "a sensor is evaluated every 5 seconds at most, and a queued run waits for the next check of the queue",
    "Dagster's own daemon loops run, as with `dagster-daemon run`.",
)
WEB_SERVER = Feature(
    "the web server",
    "the Dagster UI cannot be put behind the guard that refuses requests of other sites' pages",
    "`seedtrust-ops web` refuses to start; jobs run without it.",
)
POOLED_CONNECTIONS = Feature(
    "pooled connections to Dagster's database",
    "every statement opens a connection",
    "Dagster connects for each statement.",
)
FEWER_QUERIES = Feature(
    "the cached check for the schedules' tables",
    "every tick asks several times whether the tables exist",
    "Dagster's own schedule storage is used.",
)
DATABASE_RETRIES = Feature(
    "waiting for a database that is starting",
    "a process that starts before its database exits at once and has to be restarted",
    "The connection is tried once.",
)
RUN_OUTPUT = Feature(
    "run output in files only",
    "every step starts four processes that print its output a second time",
    "Dagster's own LocalComputeLogManager captures the output.",
)
LOCAL_FILES = Feature(
    "folders under DAGSTER_HOME",
    "files and run output cannot be kept under DAGSTER_HOME",
    "The class that Dagster itself uses by default is used.",
)
EVENT_PAGES = Feature(
    "reading the events of many runs at once",
    "the JobRun mirror needs one query per run",
    "The events are read run by run, and why a run could not be launched is not.",
)
FAILURE_SUMMARIES = Feature(
    "failure summaries",
    "JobRun and alerts do not say why a run failed",
    "Failed runs refer to the run's page in the Dagster UI.",
)
OWN_CODE = Feature(
    "loading no code but this project's",
    "anyone who writes Dagster's database can name other code, which runs then load",
    "Dagster loads the code that its database names.",
)
ASSET_JOB_TYPE = Feature("the type of asset jobs", "annotations name no type", "Nothing changes for runs.")


@dataclass(frozen=True)
class PrivateName:
    """One private name of Dagster, or a public class of which private or undocumented attributes are used."""

    module: str
    features: tuple[Feature, ...]
    attributes: tuple[str, ...] = ()
    """What is used of it; dotted for an attribute of an attribute."""
    dagster_default_for: str | None = None
    """The section of dagster.yaml for which Dagster uses this class by default, wherever it is defined."""


PRIVATE_NAMES = {
    # The executor of all jobs (orchestration/executor, orchestration/queue_expiration).
    "InProcessExecutor": PrivateName(
        "dagster._core.executor.in_process",
        (CANCELLATION, EXPIRY),
        ("execute", "retries", "step_dependency_config"),
    ),
    "PlanOrchestrationContext": PrivateName(
        "dagster._core.execution.context.system",
        (CANCELLATION, EXPIRY, RUN_IDENTITY),
        ("instance", "dagster_run"),
    ),
    "DagsterEvent": PrivateName("dagster", (CANCELLATION,), ("is_step_up_for_retry", "step_retry_data")),
    "DagsterInstance": PrivateName(
        "dagster",
        (CANCELLATION, EXPIRY, RUN_IDENTITY),
        (
            *("report_run_canceling", "report_run_canceled", "get_records_for_run", "get_run_stats"),
            *("get_run_record_by_id", "add_run_tags"),
        ),
    ),
    "SerializableErrorInfo": PrivateName(
        "dagster_shared.error", (CANCELLATION, FAILURE_SUMMARIES), ("cls_name", "cause", "message", "stack")
    ),
    # The JobRun mirror (monitoring/failure_summary, monitoring/run_events).
    "JobFailureData": PrivateName("dagster._core.events", (FAILURE_SUMMARIES,), ("error", "failure_reason")),
    "RunFailureReason": PrivateName(
        "dagster._core.events", (FAILURE_SUMMARIES,), ("START_TIMEOUT", "UNEXPECTED_TERMINATION")
    ),
    "ErrorSource": PrivateName("dagster._core.execution.plan.objects", (FAILURE_SUMMARIES,), ("INTERRUPT",)),
    "StepFailureData": PrivateName(
        "dagster._core.execution.plan.objects",
        (FAILURE_SUMMARIES,),
        ("error", "error_source", "user_failure_data"),
    ),
    "SqlEventLogStorageTable": PrivateName(
        "dagster._core.storage.event_log",
        (EVENT_PAGES,),
        ("c.id", "c.run_id", "c.dagster_event_type", "c.event"),
    ),
    "DeserializationError": PrivateName("dagster_shared.serdes.errors", (EVENT_PAGES,)),
    # The warm run launcher and the processes that it starts (launcher/).
    "DefaultRunLauncher": PrivateName("dagster", (WARM_LAUNCHER,), ("_instance",)),
    "LaunchRunContext": PrivateName("dagster._core.launcher", (WARM_LAUNCHER, OWN_CODE), ("dagster_run",)),
    "ResumeRunContext": PrivateName("dagster._core.launcher", (OWN_CODE,), ("dagster_run",)),
    "CheckRunHealthResult": PrivateName("dagster._core.launcher", (WARM_LAUNCHER,)),
    "WorkerStatus": PrivateName("dagster._core.launcher", (WARM_LAUNCHER,), ("RUNNING", "FAILED")),
    "JobPythonOrigin": PrivateName(
        "dagster._core.origin", (WARM_LAUNCHER, OWN_CODE), ("get_repo_pointer", "repository_origin", "_replace")
    ),
    "RepositoryPythonOrigin": PrivateName(
        "dagster._core.origin",
        (OWN_CODE,),
        (*("executable_path", "code_pointer", "container_image", "entry_point", "container_context"), "_replace"),
    ),
    "ModuleCodePointer": PrivateName(
        "dagster._core.code_pointer", (WARM_LAUNCHER, OWN_CODE), ("module", "fn_name", "working_directory")
    ),
    "DagsterRun": PrivateName("dagster", (OWN_CODE,), ("job_code_origin", "_replace")),
    "RunRecord": PrivateName("dagster", (OWN_CODE,), ("dagster_run", "_replace")),
    "load_python_module": PrivateName("dagster._core.code_pointer", (WARM_LAUNCHER,)),
    "EngineEventData": PrivateName("dagster._core.events", (WARM_LAUNCHER,)),
    "ExecuteRunArgs": PrivateName(
        "dagster._grpc.types",
        (WARM_LAUNCHER,),
        ("job_origin", "run_id", "instance_ref", "set_exit_code_on_failure"),
    ),
    "DagsterPostgresException": PrivateName("dagster_postgres.utils", (WARM_LAUNCHER,)),
    "_execute_run_command_body": PrivateName("dagster._cli.api", (WARM_LAUNCHER,)),
    "_inject_local_env_file": PrivateName("dagster._cli.utils", (WARM_LAUNCHER,)),
    "get_instance_for_cli": PrivateName("dagster._cli.utils", (WARM_LAUNCHER,)),
    "capture_interrupts": PrivateName("dagster._utils.interrupts", (WARM_LAUNCHER, FAST_DAEMON)),
    "start_run_cancellation_thread": PrivateName("dagster._core.execution.run_cancellation_thread", (EARLY_IMPORTS,)),
    "create_local_temp_instance": PrivateName("dagster._core.instance.factory", (EARLY_IMPORTS,)),
    "LoadableTarget": PrivateName("dagster._core.workspace.autodiscovery", (EARLY_IMPORTS,)),
    # The worker's daemon (supervisor/fast_daemon).
    "WorkspaceFileTarget": PrivateName("dagster._core.workspace.load_target", (FAST_DAEMON, WEB_SERVER)),
    "create_daemons_from_instance": PrivateName("dagster._daemon.controller", (FAST_DAEMON,)),
    "daemon_controller_from_instance": PrivateName("dagster._daemon.controller", (FAST_DAEMON,)),
    "DagsterDaemon": PrivateName("dagster._daemon.daemon", (FAST_DAEMON,), ("_logger",)),
    "SensorDaemon": PrivateName("dagster._daemon.daemon", (FAST_DAEMON,), ("core_loop",)),
    "QueuedRunCoordinatorDaemon": PrivateName("dagster._daemon.run_coordinator", (FAST_DAEMON,), ("run_iteration",)),
    "setup_interrupt_handlers": PrivateName("dagster._utils.interrupts", (FAST_DAEMON,)),
    # The web server (web/server).
    "WorkspaceProcessContext": PrivateName(
        "dagster._core.workspace.context", (WEB_SERVER,), ("create_request_context",)
    ),
    "WorkspaceRequestContext": PrivateName(
        "dagster._core.workspace.context", (WEB_SERVER,), ("permissions", "permissions_for_location")
    ),
    "create_app_from_workspace_process_context": PrivateName("dagster_webserver.app", (WEB_SERVER,)),
    # What dagster.yaml names (dagster_instance).
    "PostgresRunStorage": PrivateName(
        "dagster_postgres", (POOLED_CONNECTIONS,), ("_engine", "postgres_url", "optimize_for_webserver")
    ),
    "PostgresEventLogStorage": PrivateName(
        "dagster_postgres", (POOLED_CONNECTIONS,), ("_engine", "postgres_url", "index_connection")
    ),
    "PostgresScheduleStorage": PrivateName(
        "dagster_postgres",
        (POOLED_CONNECTIONS, FEWER_QUERIES),
        (
            *("_engine", "postgres_url", "_has_instigators_table", "has_instigators_table"),
            "has_secondary_index_table",
        ),
    ),
    "DagsterPostgresStorage": PrivateName("dagster_postgres", (FEWER_QUERIES,), ("_schedule_storage",)),
    "retry_pg_connection_fn": PrivateName("dagster_postgres.utils", (DATABASE_RETRIES,)),
    "LocalArtifactStorage": PrivateName(
        "dagster._core.storage.root", (LOCAL_FILES,), dagster_default_for="local_artifact_storage"
    ),
    "LocalComputeLogManager": PrivateName(
        "dagster._core.storage.local_compute_log_manager",
        (LOCAL_FILES, RUN_OUTPUT),
        ("capture_logs", "get_captured_local_path", "complete_artifact_path"),
        dagster_default_for="compute_logs",
    ),
    "IO_TYPE_EXTENSION": PrivateName("dagster._core.storage.local_compute_log_manager", (RUN_OUTPUT,)),
    "CapturedLogContext": PrivateName("dagster._core.storage.compute_log_manager", (RUN_OUTPUT,)),
    "ComputeIOType": PrivateName("dagster._core.storage.compute_log_manager", (RUN_OUTPUT,), ("STDOUT", "STDERR")),
    "redirect_to_file": PrivateName("dagster._core.execution.compute_logs", (RUN_OUTPUT,)),
    "ensure_file": PrivateName("dagster._utils", (RUN_OUTPUT,)),
    "touch_file": PrivateName("dagster._utils", (RUN_OUTPUT,)),
    # Annotations.
    "UnresolvedAssetJobDefinition": PrivateName(
        "dagster._core.definitions.unresolved_asset_job_definition", (ASSET_JOB_TYPE,)
    ),
}


class _Missing(type):
    """The type of the class that replaces a missing name: it can be subclassed, and everything else raises."""

    missing: str

    def __call__(cls, *_arguments: Any, **_options: Any) -> Any:
        raise DagsterIncompatible(_sentence((cls.missing,)))

    def __getattr__(cls, attribute: str) -> Any:
        if attribute.startswith("__"):
            # Python itself looks for these, for example when the class is used in an annotation.
            raise AttributeError(attribute)
        raise DagsterIncompatible(_sentence((cls.missing,)))

    def __getitem__(cls, _key: object) -> Any:
        raise DagsterIncompatible(_sentence((cls.missing,)))

    def __instancecheck__(cls, _instance: object) -> bool:
        raise DagsterIncompatible(_sentence((cls.missing,)))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Look up a private name when it is first imported from here: some of the modules take long to import."""
        if name not in PRIVATE_NAMES:
            raise AttributeError(f"{name} is not declared in PRIVATE_NAMES of {__name__}.")
        found = globals()[name] = _find(name)
        return found


def is_available(feature: Feature) -> bool:
    """Return whether Dagster has everything that the feature uses; if not, log one warning per process."""
    missing = find_missing(feature)
    if missing:
        _warn_once(feature, missing)
    return not missing


def import_modules_of(feature: Feature) -> None:
    """Import the modules that define the feature's names, ahead of their first use; warn if some are missing."""
    is_available(feature)  # looking a name up imports its module


@cache
def find_missing(feature: Feature) -> tuple[str, ...]:
    """Return what the feature uses and the installed version of Dagster lacks, as dotted names."""
    return tuple(
        missing for name, used in PRIVATE_NAMES.items() if feature in used.features for missing in _lacks(name)
    )


def require(feature: Feature) -> None:
    """Raise DagsterIncompatible, which says what is lost and what to do, if a name that the feature uses is missing."""
    missing = find_missing(feature)
    if missing:
        raise DagsterIncompatible(f"{_sentence(missing)} Without it {feature.without}. {_REMEDY}")


def require_payment_internals() -> None:
    """Refuse to send payments if something is missing without which a run that sends is not under control.

    Raises:
        DagsterIncompatible: if a name of a required feature is missing. Its message names it and says what to do.
    """
    features = {feature: None for used in PRIVATE_NAMES.values() for feature in used.features if feature.required}
    lost = [feature for feature in features if find_missing(feature)]
    if lost:
        missing = dict.fromkeys(missing for feature in lost for missing in find_missing(feature))
        reasons = "; ".join(feature.without for feature in lost)
        raise DagsterIncompatible(f"Nothing was sent. {_sentence(tuple(missing))} Without it: {reasons}. {_REMEDY}")


_REMEDY = (
    "Install the version of Dagster that requirements/base.txt pins, or adapt seedtrust_ops/dagster_internals.py to "
    "this version (docs/development.md, 'Upgrading Dagster')."
)


@cache
def _warn_once(feature: Feature, missing: tuple[str, ...]) -> None:
    _logger.warning(
        "%s This turns off %s: %s. %s %s", _sentence(missing), feature.name, feature.without, feature.instead, _REMEDY
    )


def _sentence(missing: tuple[str, ...]) -> str:
    return f"Dagster {version('dagster')} has no {', '.join(missing)}."


def _find(name: str) -> Any:
    """Return what the name stands for; the stand-in if it is missing."""
    used = PRIVATE_NAMES[name]
    try:
        return _look_up(name)
    except (ImportError, AttributeError):
        if used.dagster_default_for is not None:
            is_available(LOCAL_FILES)  # logs the warning
            return _find_dagster_default(used.dagster_default_for)
        return _Missing(name, (), {"missing": f"{used.module}.{name}"})


def _look_up(name: str) -> Any:
    return getattr(importlib.import_module(PRIVATE_NAMES[name].module), name)


def _lacks(name: str) -> Iterator[str]:
    """Yield the dotted name if it is missing, else what is missing of it."""
    used = PRIVATE_NAMES[name]
    try:
        found = _look_up(name)
    except (ImportError, AttributeError):
        yield f"{used.module}.{name}"
        return
    for attribute in used.attributes:
        if not _has(found, attribute):
            yield f"{used.module}.{name}.{attribute}"


def _has(found: Any, attribute: str) -> bool:
    """Return whether the class or object has the attribute, or sets it in `__init__`."""
    try:
        attrgetter(attribute)(found)
    except AttributeError:
        initializers = (vars(one).get("__init__") for one in getattr(found, "__mro__", ()))
        codes = (getattr(initializer, "__code__", None) for initializer in initializers)
        return any(attribute in code.co_names for code in codes if code is not None)
    return True


def _find_dagster_default(section: str) -> Any:
    """Return the class that Dagster uses for a section of dagster.yaml that is left out."""
    # Importing Dagster takes a second, and some processes that import this module use none of it.
    import dagster as dg

    with TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        default = getattr(instance.get_ref(), f"{section}_data")
    return getattr(importlib.import_module(default.module_name), default.class_name)
