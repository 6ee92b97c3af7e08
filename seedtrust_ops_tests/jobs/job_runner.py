"""Runs jobs from the project's definitions, in this process or with Dagster's command line.

Results are read from the run's events; side effects are checked in the database and the sandbox bank.
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
# Dagster builds the repository at its first use, and asks the latest instance for its state, even if that instance is
# gone. So the first use is here, before any test has an instance.
defs.get_repository_def()


@dataclass(frozen=True)
class JobResult:
    """How a run ended: one error message per failed attempt, and the return value if it succeeded."""

    success: bool
    run_id: str
    attempts: int
    messages: list[str]
    returned: Any
    metadata: dict[str, Any]


def process(batch_id: int, instance: dg.DagsterInstance | None = None) -> JobResult:
    return run(PROCESS, {"ops": {PROCESS: {"config": {"batch_id": batch_id}}}}, instance)


def run(name: str, run_config: dict[str, Any] | None = None, instance: dg.DagsterInstance | None = None) -> JobResult:
    """Run a job in this process."""
    result = defs.resolve_job_def(name).execute_in_process(
        run_config=run_config, instance=instance, raise_on_error=False
    )
    kinds = [event.event_type for event in result.all_events]
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    retries = [event.step_retry_data for event in result.all_events if event.is_step_up_for_retry]
    return JobResult(
        success=result.success,
        run_id=result.run_id,
        attempts=kinds.count(DagsterEventType.STEP_START) + kinds.count(DagsterEventType.STEP_RESTARTED),
        messages=[_message(failure.error) for failure in [*retries, *failures]],
        returned=result.output_for_node(name) if result.success else None,
        metadata=_metadata(result),
    )


def range_tags(first: str, last: str) -> dict[str, str]:
    """Return the tags of a run that Dagster launches for a backfill of these partitions."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def _message(error: Any) -> str:
    """Return the message that a person reads, without the text that Dagster adds if the attempt can be retried."""
    while "Failure: " not in error.message and error.cause is not None:
        error = error.cause
    text: str = error.message
    return text.partition("Failure: ")[2].strip() or text


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for event in result.all_events:
        if event.is_successful_output:
            metadata |= event.step_output_data.metadata
    return metadata


def dagster(
    *arguments: str, variables: Mapping[str, str], folder: Path, timeout_seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run Dagster's command line in `folder` with only these variables, PATH and a separate HOME."""
    base = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [str(DAGSTER), *arguments],
        env={**base, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def execute(batch_id: int, *, variables: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run `dagster job execute -m seedtrust_ops.definitions -j process_huntington_batch -c batch.yaml`."""
    config = folder / f"batch-{batch_id}.yaml"
    config.write_text(yaml.safe_dump({"ops": {PROCESS: {"config": {"batch_id": batch_id}}}}))
    arguments = ("job", "execute", "-m", "seedtrust_ops.definitions", "-j", PROCESS, "-c", str(config))
    return dagster(*arguments, variables=variables, folder=folder)
