"""The run launcher of deploy/kubernetes: dagster-k8s's, which starts no run that chooses its own container.

Its settings in deploy/kubernetes/dagster.yaml (`only_allow_user_defined_...`) refuse the same in dagster-k8s itself. It
is installed with the extra `kubernetes` only, so no other module imports this one.
See docs/decisions/run-admission.md.
"""

from dagster_k8s import K8sRunLauncher

from seedtrust_ops.dagster_internals import LaunchRunContext, ResumeRunContext
from seedtrust_ops.run_admission import require_startable


class CheckedK8sRunLauncher(K8sRunLauncher):
    """Starts each run as a Kubernetes job with the image and the settings in `dagster.yaml`."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run's job; raises RunRefused if its tags or code are not those that the queue accepted."""
        require_startable(context.dagster_run)
        super().launch_run(context)

    def resume_run(self, context: ResumeRunContext) -> None:
        """Start another job for the run; raises RunRefused as `launch_run` does."""
        require_startable(context.dagster_run)
        super().resume_run(context)
