"""Every private name of Dagster is where we look for it; if one is missing, a convenience falls back to Dagster's own
way, and no payment is sent without a required one.
"""

import ast
import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_postgres import PostgresRunStorage

import seedtrust_ops
from seedtrust_ops import dagster_internals
from seedtrust_ops.config import environment_for_child
from seedtrust_ops.dagster_instance import LocalRunOutput, pool_connections
from seedtrust_ops.dagster_internals import (
    PRIVATE_NAMES,
    DagsterIncompatible,
    Feature,
    find_missing,
    is_available,
    require_payment_internals,
)
from seedtrust_ops.launcher.wire_protocol import CodeToLoad, LaunchRequest
from seedtrust_ops.launcher.zygote_client import ZygoteClient, ZygoteUnfit
from seedtrust_ops.monitoring.failure_summary import CAUSE_UNREADABLE, summarize_failure
from seedtrust_ops.monitoring.run_events import RunEvents, read_events
from seedtrust_ops.sandbox.bank.process import BankProcess
from seedtrust_ops_tests.jobs.job_runner import dagster, execute
from seedtrust_ops_tests.launcher.quick_daemon import JOBS_FILE, quick_daemon, use_quick_jobs
from seedtrust_ops_tests.monitoring.run_history import execute_sample_runs
from seedtrust_ops_tests.support.dagster_homes import DagsterHome, open_instance
from seedtrust_ops_tests.support.factories import Company

PACKAGE = Path(seedtrust_ops.__file__).parent
ELSEWHERE = "dagster._moved_elsewhere"
HIDE_NAMES = f"""
import os
from dataclasses import replace
from seedtrust_ops.dagster_internals import PRIVATE_NAMES
for name in os.environ["HIDDEN_NAMES"].split(","):
    PRIVATE_NAMES[name] = replace(PRIVATE_NAMES[name], module="{ELSEWHERE}")
"""
"""The `sitecustomize` of a child process: to it, the names in HIDDEN_NAMES are missing from Dagster."""
REQUIRED = [name for name, used in PRIVATE_NAMES.items() if any(feature.required for feature in used.features)]
CONVENIENT = [name for name in PRIVATE_NAMES if name not in REQUIRED]

Hide = Callable[[str], None]
HiddenIn = Callable[[Sequence[str]], dict[str, str]]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hide]:
    """Hide a name from this process, as if Dagster had moved it; modules that imported it before still have it."""

    def hide_name(name: str) -> None:
        monkeypatch.setitem(PRIVATE_NAMES, name, replace(PRIVATE_NAMES[name], module=ELSEWHERE))
        clear_caches()

    def clear_caches() -> None:
        find_missing.cache_clear()
        dagster_internals._warn_once.cache_clear()

    yield hide_name
    monkeypatch.undo()
    clear_caches()


@pytest.fixture
def hidden_in_children(tmp_path: Path) -> HiddenIn:
    """Returns the variables of a child process from which names are hidden, in all of its modules and children."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE_NAMES)
    return lambda names: {"PYTHONPATH": str(folder), "HIDDEN_NAMES": ",".join(names)}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_private_name_is_where_we_look_for_it(name: str) -> None:
    missing = list(dagster_internals._lacks(name))
    lost = "\n".join(
        f"- {feature.name}: {feature.without}. {feature.instead}" for feature in PRIVATE_NAMES[name].features
    )
    assert not missing, f"Dagster {dg.__version__} has no {', '.join(missing)}. What breaks without it:\n{lost}"


def test_names_for_the_type_checker_are_declared_with_their_modules() -> None:
    source = ast.parse((PACKAGE / "dagster_internals.py").read_text())
    imported = {
        alias.name: node.module
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster")
        for alias in node.names
    }
    assert imported
    assert imported == {name: PRIVATE_NAMES[name].module for name in imported if name in PRIVATE_NAMES}


def test_private_modules_are_named_nowhere_else() -> None:
    """`make check` covers the imports; this also covers names in strings."""
    naming = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if any(
            private in file.read_text()
            for private in ("dagster._", "dagster_shared", "dagster_postgres.", "dagster_webserver")
        )
    }
    assert naming == {"dagster_internals.py"}


@pytest.mark.parametrize("name", REQUIRED)
def test_payments_are_refused_without_a_required_name(hide: Hide, name: str) -> None:
    require_payment_internals()
    hide(name)
    with pytest.raises(DagsterIncompatible) as refusal:
        require_payment_internals()
    message = str(refusal.value)
    assert message.startswith(f"Nothing was sent. Dagster {dg.__version__} has no {ELSEWHERE}.{name}.")
    assert "requirements/base.txt" in message


@pytest.mark.parametrize("name", CONVENIENT)
def test_convenience_without_a_name_warns_once(hide: Hide, name: str, caplog: pytest.LogCaptureFixture) -> None:
    hide(name)
    for feature in PRIVATE_NAMES[name].features:
        caplog.clear()
        assert [is_available(feature) for _ in range(2)] == [False, False]
        (warning,) = caplog.messages
        assert f"{ELSEWHERE}.{name}" in warning
        assert feature.name in warning
        assert feature.instead in warning
    require_payment_internals()


def test_missing_name_can_be_subclassed_but_not_used(hide: Hide, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("SensorDaemon")
    monkeypatch.delattr(dagster_internals, "SensorDaemon", raising=False)
    stand_in: Any = vars(dagster_internals)["__getattr__"]("SensorDaemon")
    monkeypatch.delattr(dagster_internals, "SensorDaemon")
    derived = type("Derived", (stand_in,), {})
    uses: list[Callable[[], Any]] = [
        derived,
        lambda: derived.core_loop,
        lambda: stand_in["key"],
        lambda: isinstance(1, stand_in),
    ]
    for use in uses:
        with pytest.raises(DagsterIncompatible, match="SensorDaemon"):
            use()


def test_connections_are_not_pooled_without_the_engine(hide: Hide, instance: dg.DagsterInstance) -> None:
    hide("PostgresRunStorage")
    storage = instance.run_storage
    assert isinstance(storage, PostgresRunStorage)
    before = storage._engine
    pool_connections(instance, max_connections=2)
    assert storage._engine is before
    assert instance.get_runs_count() == 0


def test_run_output_is_captured_by_dagster_without_a_name(hide: Hide, instance: dg.DagsterInstance) -> None:
    output = instance.compute_log_manager
    assert isinstance(output, LocalRunOutput)
    output.echoes_output = False
    hide("touch_file")
    with output.capture_logs(["run", "compute_logs", "step"]):
        sys.stdout.write("printed by the step")
        sys.stdout.flush()
    captured = output.get_log_data(["run", "compute_logs", "step"]).stdout
    assert captured is not None
    assert b"printed by the step" in captured


def test_events_are_read_run_by_run_without_the_event_table(hide: Hide, instance: dg.DagsterInstance) -> None:
    run_ids = [sample.run_id for sample in execute_sample_runs(instance)]
    at_once = read_events(instance, run_ids, failed=[])
    hide("SqlEventLogStorageTable")
    one_by_one = read_events(instance, run_ids, failed=[])
    assert at_once == one_by_one


def test_failure_without_summaries_refers_to_the_run_page(hide: Hide) -> None:
    hide("RunFailureReason")
    assert summarize_failure(RunEvents()) is CAUSE_UNREADABLE


@pytest.mark.usefixtures("child_processes")
def test_every_module_loads_without_any_private_name(hidden_in_children: HiddenIn, tmp_path: Path) -> None:
    load_all = (
        "import importlib, pkgutil, seedtrust_ops\n"
        "for module in pkgutil.walk_packages(seedtrust_ops.__path__, 'seedtrust_ops.'):\n"
        "    if '__main__' not in module.name and '.migrations.' not in module.name:\n"
        "        importlib.import_module(module.name)\n"
        "from seedtrust_ops.definitions import defs\n"
        "defs.get_repository_def().load_all_definitions()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", load_all],
        env={**os.environ, **hidden_in_children(list(PRIVATE_NAMES))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("child_processes")
def test_zygote_without_a_name_is_not_forked(hidden_in_children: HiddenIn, tmp_path: Path) -> None:
    shutil.copy(JOBS_FILE, tmp_path / "quick_jobs.py")
    code = CodeToLoad(sys.executable, "quick_jobs", str(tmp_path))
    environment = environment_for_child(hidden_in_children(["load_python_module"]))
    request = LaunchRequest("run-1", "{}", code, environment, str(tmp_path))

    async def fork() -> None:
        zygote = ZygoteClient(request, str(tmp_path))
        try:
            await zygote.fork(request)
        finally:
            zygote.retire()
            os.waitpid(zygote.pid, 0)

    with pytest.raises(ZygoteUnfit, match="lacks what a warm start needs"):
        asyncio.run(fork())


@pytest.mark.usefixtures("child_processes")
def test_required_name_missing_refuses_payments_and_runs_other_jobs(
    company: Company,
    bank: BankProcess,
    bank_environment: dict[str, str],
    dagster_home: DagsterHome,
    hidden_in_children: HiddenIn,
    tmp_path: Path,
) -> None:
    batch_id = company.batch([30_000])
    known = len(bank.control.ledger()["transfers"])
    variables = {
        **bank_environment,
        **dagster_home.variables,
        **hidden_in_children(["InProcessExecutor"]),
        "DEV_ENV": "1",
    }
    refused = execute(batch_id, variables=variables, folder=tmp_path)
    assert refused.returncode != 0
    assert f"Nothing was sent. Dagster {dg.__version__} has no {ELSEWHERE}.InProcessExecutor." in refused.stderr
    assert "STEP_UP_FOR_RETRY" not in refused.stderr
    assert company.batch_row(batch_id).status == "queued"
    assert len(bank.control.ledger()["transfers"]) == known
    example = ("job", "execute", "-m", "seedtrust_ops.definitions", "-j", "example")
    done = dagster(*example, variables=variables, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Payment runs refuse to start" in done.stderr


@pytest.mark.usefixtures("daemon_processes")
@pytest.mark.parametrize("name", ["create_app_from_workspace_process_context", "WorkspaceRequestContext"])
def test_web_server_without_a_name_refuses_to_start(
    dagster_home: DagsterHome, hidden_in_children: HiddenIn, tmp_path: Path, name: str
) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    hidden = hidden_in_children([name])
    done = subprocess.run(
        [sys.executable, "-m", "seedtrust_ops.cli.main", "web", "--workspace", "workspace.yaml"],
        env=environment_for_child({**dagster_home.variables, **hidden}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert f"has no {ELSEWHERE}.{name}." in done.stderr


@pytest.mark.usefixtures("daemon_processes")
def test_queued_run_succeeds_without_any_convenience(
    dagster_home: DagsterHome, hidden_in_children: HiddenIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hidden_in_children(CONVENIENT).items():
        monkeypatch.setenv(name, value)
    use_quick_jobs(dagster_home)
    with (
        open_instance(dagster_home) as instance,
        quick_daemon(dagster_home, instance, "fast-daemon") as daemon,
    ):
        (run_id,) = daemon.submit("nothing")
        daemon.wait_for(run_id, dg.DagsterRunStatus.SUCCESS)
        assert not [text for text in daemon.event_messages(run_id) if "Warm start" in text or "Cold start" in text]
        assert not daemon.find_processes("seedtrust_ops.launcher.run_host")
        log = daemon.log.read_text()
    used: list[Feature] = [
        *(dagster_internals.FAST_DAEMON, dagster_internals.LOCAL_FILES),
        *(dagster_internals.FEWER_QUERIES, dagster_internals.DATABASE_RETRIES),
    ]
    if "WarmRunLauncher" in (dagster_home.folder / "dagster.yaml").read_text():
        used.append(dagster_internals.WARM_LAUNCHER)
    assert [feature.name for feature in used if f"This turns off {feature.name}:" not in log] == []
    assert log.count(f"This turns off {dagster_internals.FAST_DAEMON.name}:") == 1
    assert "DagsterIncompatible" not in log
