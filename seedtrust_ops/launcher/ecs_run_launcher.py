"""The run launcher of deploy/ecs: dagster-aws's, which starts no run that chooses its own container.

dagster-aws has no setting for that: whatever a run's tag `ecs/container_overrides` says replaces the command, the
environment and the role of its task. It is installed with the extra `ecs` only, so no other module imports this one.
See docs/decisions/run-admission.md.
"""

from dagster_aws.ecs import EcsRunLauncher

from seedtrust_ops.dagster_internals import LaunchRunContext, ResumeRunContext
from seedtrust_ops.run_admission import require_startable


class CheckedEcsRunLauncher(EcsRunLauncher):
    """Starts each run as a task of the task definition in `dagster.yaml`, with that definition's container."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's task; raises RunRefused if its tags or code are not those that the queue accepted."""
        require_startable(context.dagster_run)
        super().launch_run(context)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start another task for the run; raises RunRefused as `launch_run` does."""
        require_startable(context.dagster_run)
        super().resume_run(context)
