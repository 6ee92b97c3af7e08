"""Four example jobs for DEV_ENV=1: one succeeds, one fails, one reports progress, one takes arguments.

They touch no SeedTrust data and have no schedule or sensor.
"""

import time

import dagster as dg
from pydantic import Field

from seedtrust_ops.config import get_settings
from seedtrust_ops.orchestration.job_factory import JobConfig, single_op_job
from seedtrust_ops.orchestration.metadata import show_progress


class ProgressConfig(JobConfig):
    """How many steps to run, and how long each takes."""

    steps: int = Field(default=10, ge=1, le=1_000, description="The number of steps.")
    seconds_per_step: float = Field(default=1.0, ge=0, le=60, description="Seconds that each step takes.")


class GreetingConfig(JobConfig):
    """Whom to greet, and how many times."""

    name: str = Field(default="operations", min_length=1, description="The name of the person to greet.")
    times: int = Field(default=1, ge=1, le=100, description="How many times to greet the person.")


@single_op_job(kind="python", shadow=None, legacy_name="Huey EXAMPLE")
def example(context: dg.OpExecutionContext) -> str:
    """Log a greeting and succeed."""
    context.log.info("Hello from SeedTrust Ops.")
    return "hello"


@single_op_job(kind="python", shadow=None, legacy_name="Huey EXAMPLE_ERROR")
def example_error(_context: dg.OpExecutionContext) -> None:
    """Fail on purpose, to show what a failure looks like and who is notified."""
    raise dg.Failure("This job fails on purpose. There is nothing to fix.", allow_retries=False)


@single_op_job(kind="python", shadow=None, legacy_name="Huey EXAMPLE_PROGRESS")
def example_progress(context: dg.OpExecutionContext, config: ProgressConfig) -> dict[str, int]:
    """Run a number of steps and report progress after each one in the run's tags, its log and JobRun."""
    show_progress(context, done=0, total=config.steps)
    for step in range(1, config.steps + 1):
        time.sleep(config.seconds_per_step)
        context.log.info(f"Step {step} of {config.steps} done.")
        show_progress(context, done=step, total=config.steps)
    context.add_output_metadata({"Steps": config.steps})
    return {"steps": config.steps}


@single_op_job(kind="python", shadow=None, legacy_name="Huey EXAMPLE_WITH_ARGS")
def example_with_args(context: dg.OpExecutionContext, config: GreetingConfig) -> list[str]:
    """Greet a person as many times as the config says."""
    greetings = [f"Hello, {config.name}."] * config.times
    context.log.info(" ".join(greetings))
    context.add_output_metadata({"Greetings": config.times})
    return greetings


# Production has none of them.
defs = dg.Definitions(
    jobs=[example, example_error, example_progress, example_with_args] if get_settings().location.dev_env else []
)
