"""Which jobs are in shadow: they decide and record what they would have done, and touch nothing else.

What a job does in shadow is in `domain/shadow/`; docs/cutover.md says when to use which variable.
"""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from seedtrust_ops.config.settings_base import SettingsGroup
from seedtrust_ops.job_policies import JOB_POLICIES


class ShadowSettings(SettingsGroup):
    """The two switches of shadow mode: everything, or the jobs that a legacy scheduler still runs."""

    everything: bool = Field(
        default=False,
        validation_alias="SEEDTRUST_SHADOW",
        description="1 to let every job record what it would have done, and touch nothing else",
    )
    jobs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        validation_alias="SEEDTRUST_SHADOW_JOBS",
        description="the jobs, comma-separated, that only record what they would have done, because a legacy system "
        "still runs them",
    )

    @field_validator("jobs", mode="before")
    @classmethod
    def _split(cls, text: object) -> object:
        return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text

    @field_validator("jobs")
    @classmethod
    def _exist(cls, jobs: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [str(place) for place, job in enumerate(jobs, start=1) if job not in JOB_POLICIES]
        if unknown:
            # Whoever mistypes a name takes a job for harmless that is not, so that no job may run. What stands there is
            # not repeated: people put secrets into the wrong variables.
            places, names = ", ".join(unknown), ", ".join(JOB_POLICIES)
            raise ValueError(f"no job has the name that stands there in place {places}; the jobs are {names}")
        return jobs

    def covers(self, job: str) -> bool:
        """Return whether the job of that name is in shadow."""
        return self.everything or job in self.jobs
