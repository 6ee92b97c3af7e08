"""Four jobs for developers' machines: one that works, one that fails, one that takes its time, one with arguments.

They change nothing of SeedTrust's; nothing launches them but a person.
"""

import time

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.orchestration.job_factory import JobConfig, single_op_job
from seedtrust_ops.orchestration.metadata import show_progress
from seedtrust_ops.orchestration.user_facing_failures import RETRIES
from seedtrust_ops.severity import Severity

SEVERITY = Severity.LOW


class Steps(JobConfig):
    """How long to take."""

    steps: int = Field(default=10, ge=1, le=1_000, description="How many steps there are.")
    seconds_a_step: float = Field(default=1.0, ge=0, le=60, description="How many seconds each step takes.")


class Greeting(JobConfig):
    """Whom to greet, and how often."""

    name: str = Field(default="operations", min_length=1, description="Who is greeted, by name.")
    times: int = Field(default=1, ge=1, le=100, description="How often they are greeted.")


@dg.op(name="example", retry_policy=RETRIES, tags={"kind": "python"})
def example_op(context: dg.OpExecutionContext) -> str:
    """Say hello and end well."""
    context.log.info("Hello from SeedTrust Ops.")
    return "hello"


@dg.op(name="example_error", retry_policy=RETRIES, tags={"kind": "python"})
def example_error_op() -> None:
    """Fail, to show how a failure looks and who is told."""
    raise dg.Failure("This job fails on purpose: there is nothing to mend.", allow_retries=False)


@dg.op(name="example_progress", retry_policy=RETRIES, tags={"kind": "python"})
def example_progress_op(context: dg.OpExecutionContext, config: Steps) -> dict[str, int]:
    """Take step after step, and show after each how far it has come: in the run's tags, its log, and JobRun."""
    show_progress(context, done=0, total=config.steps)
    for step in range(1, config.steps + 1):
        time.sleep(config.seconds_a_step)
        context.log.info(f"Step {step} of {config.steps} is done.")
        show_progress(context, done=step, total=config.steps)
    context.add_output_metadata({"steps": config.steps})
    return {"steps": config.steps}


@dg.op(name="example_with_args", retry_policy=RETRIES, tags={"kind": "python"})
def example_with_args_op(context: dg.OpExecutionContext, config: Greeting) -> list[str]:
    """Greet somebody as often as its arguments say."""
    greetings = [f"Hello, {config.name}."] * config.times
    context.log.info(" ".join(greetings))
    context.add_output_metadata({"greetings": config.times})
    return greetings


example = single_op_job(example_op, SEVERITY, legacy_name="Huey EXAMPLE")
example_error = single_op_job(example_error_op, SEVERITY, legacy_name="Huey EXAMPLE_ERROR")
example_progress = single_op_job(example_progress_op, SEVERITY, legacy_name="Huey EXAMPLE_PROGRESS")
example_with_args = single_op_job(example_with_args_op, SEVERITY, legacy_name="Huey EXAMPLE_WITH_ARGS")


def example_jobs() -> list[dg.JobDefinition]:
    """Return the four where DEV_ENV=1, and none in production."""
    return [example, example_error, example_progress, example_with_args] if get_settings().location.dev_env else []
