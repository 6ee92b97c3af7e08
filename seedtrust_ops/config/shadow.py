"""Which jobs run in shadow mode: they record what they would have done and change nothing else.

Shadow mode itself is in `domain/shadow_mode/`; docs/cutover.md says when to use which variable.
See docs/decisions/shadow-mode.md.
"""

from pydantic import Field, field_validator

from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.job_policies import JOB_POLICIES


class ShadowSettings(SettingsGroup):
    """The two switches of shadow mode: all jobs, or the jobs that a legacy system still runs."""

    all_jobs: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_SHADOW",
        description="1 to run every job in shadow mode: it records what it would have done and changes nothing else",
    )
    jobs: tuple[str, ...] = Field(
        default=(),
        validation_alias="SEEDTRUST_SHADOW_JOBS",
        description="a comma-separated list of jobs to run in shadow mode, because a legacy system still runs them",
    )

    @field_validator("jobs", mode="before")
    @classmethod
    def _split_list(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("jobs")
    @classmethod
    def _require_known_jobs(cls, jobs: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [str(position) for position, job in enumerate(jobs, start=1) if job not in JOB_POLICIES]
        if unknown:
            # A mistyped name would leave a job live that somebody believes is in shadow mode, so no job may run.
            # The value is not repeated: people put secrets into the wrong variables.
            positions, names = ", ".join(unknown), ", ".join(JOB_POLICIES)
            raise ValueError(f"the list contains an unknown job at position {positions}; the jobs are {names}")
        return jobs

    def covers(self, job: str) -> bool:
        """Return whether this job runs in shadow mode."""
        return self.all_jobs or job in self.jobs
