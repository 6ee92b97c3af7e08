"""Runs the project's jobs as production does: its own definitions, in this process or by Dagster's command line.

What a run said is read from its events; what it did is the database's and the bank's to say.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster import DagsterEventType

from seedtrust_ops.definitions import defs
from seedtrust_ops.jobs.process_huntington_batch import NAME as PROCESS

DAGSTER = Path(sys.executable).parent / "dagster"


@dataclass(frozen=True)
class Ran:
    """How a run ended: its sentences where it failed, one a try, and what it returned where it did not."""

    success: bool
    run_id: str
    tries: int
    sentences: list[str]
    returned: Any
    metadata: dict[str, Any]


def process(batch_id: int, instance: dg.DagsterInstance | None = None) -> Ran:
    return run(PROCESS, {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}}, instance)


def run(name: str, run_config: dict[str, Any] | None = None, instance: dg.DagsterInstance | None = None) -> Ran:
    """Run a job in this process."""
    result = defs.resolve_job_def(name).execute_in_process(
        run_config=run_config, instance=instance, raise_on_error=False
    )
    kinds = [event.event_type for event in result.all_events]
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    retries = [event.step_retry_data for event in result.all_events if event.is_step_up_for_retry]
    return Ran(
        success=result.success,
        run_id=result.run_id,
        tries=kinds.count(DagsterEventType.STEP_START) + kinds.count(DagsterEventType.STEP_RESTARTED),
        sentences=[_sentence(failure.error) for failure in [*retries, *failures]],
        returned=result.output_for_node(name) if result.success else None,
        metadata=_metadata(result),
    )


def _sentence(error: Any) -> str:
    """What a person reads; where a try was or could be followed by another, Dagster wraps it into words of its own."""
    while "Failure: " not in error.message and error.cause is not None:
        error = error.cause
    text: str = error.message
    return text.partition("Failure: ")[2].strip() or text


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for event in result.all_events:
        if event.is_successful_output:
            shown |= event.step_output_data.metadata
    return shown


def dagster(
    *arguments: str, variables: Mapping[str, str], folder: Path, timeout_seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run Dagster's command line in `folder` with these variables and no others but PATH and a HOME of its own."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [str(DAGSTER), *arguments],
        env={**bare, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def execute(batch_id: int, *, variables: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """`dagster job execute -m seedtrust_ops.definitions -j process_huntington_batch -c batch.yaml`."""
    config = folder / f"batch-{batch_id}.yaml"
    config.write_text(yaml.safe_dump({"ops": {PROCESS: {"config": {"batch_id": batch_id}}}}))
    arguments = ("job", "execute", "-m", "seedtrust_ops.definitions", "-j", PROCESS, "-c", str(config))
    return dagster(*arguments, variables=variables, folder=folder)
