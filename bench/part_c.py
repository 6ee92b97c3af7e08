"""(c) What one run costs: CPU seconds and memory, warm and cold."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.workspace.context import WorkspaceRequestContext

from bench.contenders import Working, ours
from bench.figures import Figure, Part, Promise, say
from bench.ground import Ground, cpu_seconds, database_server, ground, wait_for
from bench.looking_in import LOCATION, instance_at, workspace_at
from seedtrust_ops_tests.support.launches import submit

RUNS = 10
HELD_RUNS = 5
HOLD = {"ops": {"example_progress": {"config": {"steps": 1, "seconds_a_step": 2.0}}}}
MEBIBYTE = 2**20


def measure(_large: bool) -> Part:
    part = Part(
        "c",
        "CPU seconds and memory of a run",
        "Job `example`, which does nothing, and `example_progress`, which waits while it is weighed; both in our code "
        "location, started by our launcher and by Dagster's own. CPU is that of all processes but the daemon. Memory "
        "is what the run's own process does not share with any other (USS).",
    )
    medians: dict[str, float] = {}
    memory: dict[str, float] = {}
    with database_server() as server:
        for name, warm in (("warm", True), ("cold", False)):
            say(f"(c) {name}")
            with (
                ground(server, latency_ms=0, DEV_ENV="1") as there,
                ours(there, warm=warm) as working,
                instance_at(there, there.folder / "ours") as instance,
                _workspace(there, instance) as workspace,
            ):
                _run(instance, workspace, "example", {})
                values = [_cost(instance, workspace, working) for _ in range(RUNS)]
                medians[name] = part.add(Figure(f"{name}: CPU of a run", [cpu for cpu, _ in values])).median
                part.add(Figure(f"{name}: from submission to the end", [seconds for _, seconds in values]))
                weights = [_weight(instance, workspace, working) for _ in range(HELD_RUNS)]
                memory[name] = part.add(Figure(f"{name}: memory of its own", weights, "MB")).median
    ratio = medians["cold"] / medians["warm"]
    part.promises += [
        Promise("a warm run takes at most 1/8 of the CPU of a cold one", f"1/{ratio:.1f}", ratio >= 8),
        Promise("a warm run has at most 40 MB of its own", f"{memory['warm']:.0f} MB", memory["warm"] < 40),
    ]
    return part


@contextmanager
def _workspace(there: Ground, instance: dg.DagsterInstance) -> Iterator[WorkspaceRequestContext]:
    file = there.folder / "ours" / ".seedtrust" / "worker" / "workspace.yaml"
    wait_for(file.exists, 120, "the worker's workspace")
    wait_for(lambda: _answers(instance, file), 120, "the code server", every=1)
    with workspace_at(instance, file) as workspace:
        yield workspace


def _answers(instance: dg.DagsterInstance, file: Path) -> bool:
    # Until it listens, each try is warned of.
    with warnings.catch_warnings(action="ignore"), workspace_at(instance, file) as workspace:
        return not workspace.code_location_errors()


def _cost(instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, working: Working) -> tuple[float, float]:
    before, began = _without_daemon(working.process), time.monotonic()
    _run(instance, workspace, "example", {})
    took = time.monotonic() - began
    # A run's time is its parent's to tell once it has collected it.
    time.sleep(2.0)
    return _without_daemon(working.process) - before, took


def _weight(instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, working: Working) -> float:
    before = {process.pid for process in working.process.children(recursive=True)}
    (run_id,) = submit(instance, workspace, LOCATION, "example_progress", HOLD)
    heaviest = 0.0
    while not _ended(instance, run_id):
        for process in working.process.children(recursive=True):
            if process.pid not in before:
                heaviest = max(heaviest, _own_memory(process))
        time.sleep(0.1)
    return heaviest


def _own_memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().uss) / MEBIBYTE
    except psutil.NoSuchProcess:
        return 0.0


def _run(instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, job: str, config: dict[str, object]) -> None:
    (run_id,) = submit(instance, workspace, LOCATION, job, config)
    wait_for(lambda: _ended(instance, run_id), 300, f"run {run_id}")


def _ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def _without_daemon(root: psutil.Process) -> float:
    daemon = next(
        child
        for child in root.children(recursive=True)
        if "seedtrust_ops.supervisor.fast_daemon" in child.cmdline()
        and "seedtrust_ops.supervisor.process_guard" not in child.cmdline()
    )
    return cpu_seconds(root) - cpu_seconds(daemon)
