"""Part (c): CPU seconds and memory of one run, warm and cold."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.workspace.context import WorkspaceRequestContext

from bench.dagster_access import LOCATION, load_instance, load_workspace
from bench.environment import BenchEnvironment, cpu_seconds, open_environment, start_database_server, wait_for
from bench.measurements import Measurement, Part, Target, log_line
from bench.systems import RunningSystem, our_worker
from seedtrust_ops_tests.support.run_submission import submit_runs

RUNS = 10
HELD_RUNS = 5
HOLD_CONFIG = {"ops": {"example_progress": {"config": {"steps": 1, "seconds_per_step": 2.0}}}}
MEBIBYTE = 2**20


def measure(_large: bool) -> Part:
    part = Part(
        "c",
        "CPU seconds and memory of a run",
        "Job `example`, which does nothing, and `example_progress`, which waits while its memory is measured; both in "
        "our code location, started by our launcher (warm) and by Dagster's own (cold). CPU is that of all processes "
        "except the daemon. Memory is what the run's process does not share with any other (USS).",
    )
    medians: dict[str, float] = {}
    memory: dict[str, float] = {}
    with start_database_server() as server:
        for name, warm in (("warm", True), ("cold", False)):
            log_line(f"(c) {name}")
            with (
                open_environment(server, latency_ms=0, DEV_ENV="1") as env,
                our_worker(env, warm=warm) as system,
                load_instance(env, env.folder / "seedtrust") as instance,
                _workspace(env, instance) as workspace,
            ):
                _run(instance, workspace, "example", {})
                values = [_measure_cpu(instance, workspace, system) for _ in range(RUNS)]
                medians[name] = part.add(Measurement(f"{name}: CPU per run", [cpu for cpu, _ in values])).median
                part.add(Measurement(f"{name}: submission to completion", [seconds for _, seconds in values]))
                sizes = [_measure_memory(instance, workspace, system) for _ in range(HELD_RUNS)]
                memory[name] = part.add(Measurement(f"{name}: unshared memory", sizes, "MB")).median
    ratio = medians["cold"] / medians["warm"]
    part.targets += [
        Target("warm run: at most 1/8 of the CPU of a cold run", f"1/{ratio:.1f}", ratio >= 8),
        Target("warm run: at most 40 MB of unshared memory", f"{memory['warm']:.0f} MB", memory["warm"] < 40),
    ]
    return part


@contextmanager
def _workspace(env: BenchEnvironment, instance: dg.DagsterInstance) -> Iterator[WorkspaceRequestContext]:
    file = env.folder / "seedtrust" / ".seedtrust" / "worker" / "workspace.yaml"
    wait_for(file.exists, 120, "the worker's workspace")
    wait_for(lambda: _is_listening(instance, file), 120, "the code server", every=1)
    with load_workspace(instance, file) as workspace:
        yield workspace


def _is_listening(instance: dg.DagsterInstance, file: Path) -> bool:
    # Until the code server listens, each attempt logs a warning.
    with warnings.catch_warnings(action="ignore"), load_workspace(instance, file) as workspace:
        return not workspace.code_location_errors()


def _measure_cpu(
    instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, system: RunningSystem
) -> tuple[float, float]:
    before, began = _cpu_without_daemon(system.process), time.monotonic()
    _run(instance, workspace, "example", {})
    elapsed = time.monotonic() - began
    # A run's CPU time is added to its parent's once the parent has reaped it.
    time.sleep(2.0)
    return _cpu_without_daemon(system.process) - before, elapsed


def _measure_memory(instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, system: RunningSystem) -> float:
    before = {process.pid for process in system.process.children(recursive=True)}
    (run_id,) = submit_runs(instance, workspace, LOCATION, "example_progress", HOLD_CONFIG)
    peak = 0.0
    while not _is_finished(instance, run_id):
        for process in system.process.children(recursive=True):
            if process.pid not in before:
                peak = max(peak, _unshared_memory(process))
        time.sleep(0.1)
    return peak


def _unshared_memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().uss) / MEBIBYTE
    except psutil.NoSuchProcess:
        return 0.0


def _run(instance: dg.DagsterInstance, workspace: WorkspaceRequestContext, job: str, config: dict[str, object]) -> None:
    (run_id,) = submit_runs(instance, workspace, LOCATION, job, config)
    wait_for(lambda: _is_finished(instance, run_id), 300, f"run {run_id}")


def _is_finished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def _cpu_without_daemon(root: psutil.Process) -> float:
    daemon = next(
        child
        for child in root.children(recursive=True)
        if "seedtrust_ops.supervisor.fast_daemon" in child.cmdline()
        and "seedtrust_ops.supervisor.process_guard" not in child.cmdline()
    )
    return cpu_seconds(root) - cpu_seconds(daemon)
