"""SeedTrust's internal API as a resource of Dagster's. How it is spoken to is `status_api`'s."""

import dagster as dg

from seedtrust_ops.config import environment
from seedtrust_ops.resources.status_api import TIMEOUT_SECONDS, InternalApi


class InternalApiResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The API of INTERNAL_API_URL and INTERNAL_API_KEY."""

    def api(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> InternalApi:
        """Return the API; raises `ConfigurationError`, naming the variable, where one is missing."""
        return InternalApi(environment().internal_api, timeout_seconds)
