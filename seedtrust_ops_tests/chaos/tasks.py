"""What a test and its worker process send each other: the task, and the result of running it.

The functions that do the work are in `task_runner`; the process itself is in `worker_processes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seedtrust_ops_tests.chaos.faults import Fault
from seedtrust_ops_tests.chaos.injection_points import InjectionPoint
from seedtrust_ops_tests.chaos.worker_config import WorkerConfig


@dataclass(frozen=True)
class Task:
    """What a worker runs, with which configuration, and which fault it meets.

    `name` is a key of `task_runner.TASKS`. Without an `injection_point` no fault is injected and the steps are only
    recorded. If `is_persistent`, the fault recurs at every step after the injection point. `statements` are SQL verbs:
    if given, only statements that start with one of them count as steps.
    """

    name: str
    config: WorkerConfig
    injection_point: InjectionPoint | None = None
    fault: Fault = Fault.CRASH
    is_persistent: bool = False
    statements: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskResult:
    """What a worker reports at its end: its steps, whether the fault was injected, and its error, if any.

    `leaving_when_injected` are the transaction ids that had passed the product's last check when the fault was
    injected, but had not been sent yet.
    """

    steps: Sequence[str]
    fault_injected: bool
    error: str | None
    leaving_when_injected: frozenset[int]
