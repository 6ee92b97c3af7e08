"""PostHog as a resource of Dagster's. How it is spoken to is `posthog_project`'s."""

import dagster as dg

from seedtrust_ops.config import environment
from seedtrust_ops.resources.posthog_project import PostHog


class PostHogResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The project of POSTHOG_HOST and POSTHOG_API_KEY."""

    def project(self) -> PostHog | None:
        """Return the project, None where no key is set; raises `ConfigurationError` where a variable can't be used."""
        settings = environment().posthog
        return PostHog(settings.host, settings.key) if settings.key is not None else None
